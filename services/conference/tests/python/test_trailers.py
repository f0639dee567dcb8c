"""What a publisher attaches to its frames reaches those who read it, and spoils nobody else's picture."""

import asyncio

import pytest
from livekit import rtc

from harness import until
from media import RED

FEATURES = [rtc.FrameMetadataFeature.FMF_USER_TIMESTAMP, rtc.FrameMetadataFeature.FMF_USER_DATA]
METADATA = rtc.FrameMetadata(user_timestamp=1_763_750_000_000_000, user_data=bytes(range(200)))


@pytest.mark.parametrize("codec", ["VP8", "VP9", "H264", "AV1"])
async def test_metadata_of_frames_reaches_who_reads_it_and_nobody_else(codec, join, relay):
    # The SDK always says that it reads them; for carol the server does not hear it.
    relay.misheard = (b"CAP_PACKET_TRAILER", b"CAP_OF_ANOTHER_AGE")
    ann, bob, carol = await asyncio.gather(join("ann"), join("bob"), join("carol", relay))
    publication = await ann.publish_colour(
        RED, features=FEATURES, metadata=METADATA, codec=getattr(rtc.VideoCodec, codec)
    )
    assert publication.frame_metadata_features == FEATURES
    await asyncio.gather(bob.sees("ann", RED), carol.sees("ann", RED))
    await until("bob reads what ann attached", lambda: bob.eyes["ann"].metadata == METADATA)
    assert bob.other("ann").track_publications[publication.sid].frame_metadata_features == FEATURES
    if codec != "AV1":  # There it is a unit of the picture that decoders pass over.
        assert carol.eyes["ann"].metadata is None
