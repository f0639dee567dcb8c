"""A person of a call: a room, what was published into it and what arrived from it."""

import asyncio
import contextlib

from livekit import rtc

from harness import until
from media import Camera, Ear, Eye, Tone

# Signalling has no reason to be slow, and SDKs promise mutual visibility within this.
VISIBLE_SECONDS = 5


class Person:
    """Instruments open on whatever arrives; for somebody inattentive only as long as `attending` says.

    Eight people who all attend to all are more than one Python process takes in on a busy machine.
    """

    def __init__(self, identity: str, attentive: bool = True) -> None:
        self.identity = identity
        self.room = rtc.Room()
        self.events: list[tuple[str, tuple]] = []
        self.packets: list[rtc.DataPacket] = []
        self.ears: dict[str, Ear] = {}
        self.eyes: dict[str, Eye] = {}
        self._sources: list[Tone | Camera] = []
        self._closing: set[asyncio.Task] = set()
        for name in EVENTS:
            self.room.on(name, self._recorder(name))
        self.room.on("data_received", self.packets.append)
        if attentive:
            self.room.on("track_subscribed", self._on_track)
        self.room.on("track_unsubscribed", self._on_track_gone)

    @property
    def me(self) -> rtc.LocalParticipant:
        return self.room.local_participant

    async def join(self, url: str, token: str, **options) -> "Person":
        await self.room.connect(url, token, rtc.RoomOptions(**options))
        return self

    async def publish_tone(self, frequency: float, rms: float = 0.2) -> rtc.LocalTrackPublication:
        tone = Tone(frequency, rms)
        self._sources.append(tone)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=False)
        return await self.me.publish_track(tone.track, options)

    async def publish_colour(self, colour: tuple[int, int, int], **camera) -> rtc.LocalTrackPublication:
        options = rtc.TrackPublishOptions(
            source=rtc.TrackSource.SOURCE_CAMERA,
            simulcast=camera.pop("simulcast", False),
            frame_metadata_features=camera.pop("features", []),
            video_codec=camera.pop("codec", rtc.VideoCodec.VP8),
        )
        source = Camera(colour, **camera)
        self._sources.append(source)
        return await self.me.publish_track(source.track, options)

    def other(self, identity: str) -> rtc.RemoteParticipant | None:
        return self.room.remote_participants.get(identity)

    @contextlib.asynccontextmanager
    async def attending(self, identity: str):
        """To all that is subscribed to of somebody."""
        other = self.other(identity)
        for publication in other.track_publications.values():
            self._on_track(publication.track, publication, other)
        yield
        await asyncio.gather(*(held.pop(identity).close() for held in (self.ears, self.eyes) if identity in held))

    async def knows(self, *others: "Person | str", within: float = VISIBLE_SECONDS) -> None:
        names = {other if isinstance(other, str) else other.identity for other in others}
        await until(
            f"{self.identity} knows {sorted(names)}",
            lambda: names <= set(self.room.remote_participants),
            within,
        )

    async def misses(self, identity: str, within: float = VISIBLE_SECONDS) -> None:
        await until(f"{self.identity} misses {identity}", lambda: not self.other(identity), within)

    async def hears(self, identity: str, frequency: float, rms: float = 0.2, within: float = 20) -> None:
        """Until the tone is heard with its frequency and energy, each within a tenth."""

        def right() -> bool:
            ear = self.ears.get(identity)
            sound = ear.hear() if ear else None
            return (
                sound is not None
                and abs(sound.frequency - frequency) < 0.1 * frequency
                and abs(sound.rms**2 - rms**2) < 0.1 * rms**2
            )

        try:
            await until(f"{self.identity} hears {identity}", right, within)
        except AssertionError as error:
            heard = self.ears[identity].hear() if identity in self.ears else "no track"
            raise AssertionError(f"{error}; heard {heard}, not {frequency} Hz at {rms}") from None

    async def sees(self, identity: str, colour: tuple[int, int, int], within: float = 20) -> None:
        """Until the colour is seen and goes on being seen for a second at ten frames."""
        await until(
            f"{self.identity} sees {colour} of {identity}",
            lambda: identity in self.eyes and self.eyes[identity].sees(colour),
            within,
        )
        eye = self.eyes[identity]
        eye.mark()
        await until(f"{self.identity} sees {identity} move", lambda: eye.frames >= 10, 5)

    async def event(self, name: str, matches=lambda *_: True, within: float = 10) -> tuple:
        def find():
            return next((args or (None,) for seen, args in self.events if seen == name and matches(*args)), None)

        try:
            return await until(f"{self.identity} hears of {name}", find, within)
        except AssertionError as error:
            raise AssertionError(f"{error}; events: {[seen for seen, _ in self.events]}") from None

    async def receives(self, text: str, within: float = 10) -> rtc.DataPacket:
        wanted = text.encode()
        return await until(
            f"{self.identity} receives {text!r}",
            lambda: next((packet for packet in self.packets if packet.data == wanted), None),
            within,
        )

    async def leave(self) -> None:
        await self.room.disconnect()

    async def close(self) -> None:
        await self.leave()
        instruments = [*self.ears.values(), *self.eyes.values(), *self._sources]
        await asyncio.gather(*(one.close() for one in instruments), *self._closing, return_exceptions=True)

    def _recorder(self, name: str):
        return lambda *args: self.events.append((name, args))

    def _on_track(self, track: rtc.Track, _: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant) -> None:
        audio = track.kind == rtc.TrackKind.KIND_AUDIO
        held, instrument = (self.ears, Ear) if audio else (self.eyes, Eye)
        self._close_later(held.pop(participant.identity, None))
        held[participant.identity] = instrument(track)

    def _on_track_gone(self, track, publication: rtc.RemoteTrackPublication, participant) -> None:
        held = self.ears if publication.kind == rtc.TrackKind.KIND_AUDIO else self.eyes
        self._close_later(held.pop(participant.identity, None))

    def _close_later(self, instrument: Ear | Eye | None) -> None:
        if instrument is not None:
            self._closing.add(asyncio.create_task(instrument.close()))


EVENTS = (
    "participant_connected",
    "participant_disconnected",
    "track_published",
    "track_unpublished",
    "track_muted",
    "track_unmuted",
    "local_track_published",
    "local_track_republished",
    "active_speakers_changed",
    "room_metadata_changed",
    "participant_metadata_changed",
    "participant_name_changed",
    "participant_attributes_changed",
    "connection_quality_changed",
    "connection_state_changed",
    "disconnected",
    "reconnecting",
    "reconnected",
)
