"""The instruments themselves, without any server. If these fail, no other verdict about media counts."""

import asyncio

import numpy as np
import pytest

from harness import until
from media import RED, Camera, Ear, Eye, Tone, analyse, sine


@pytest.mark.parametrize("frequency", [220.0, 440.0, 661.5, 1234.0])
@pytest.mark.parametrize("rms", [0.01, 0.2])
def test_a_tone_is_measured_with_its_frequency_and_energy(frequency, rms):
    sound = analyse(sine(frequency, rms, 1234, 24_000))
    assert sound.frequency == pytest.approx(frequency, rel=0.002)
    assert sound.rms == pytest.approx(rms, rel=0.01)


def test_silence_has_no_frequency():
    assert analyse(np.zeros(24_000)).rms == 0


async def test_a_tone_played_into_a_track_is_heard_from_it():
    tone = Tone(440)
    ear = Ear(tone.track)
    try:

        def right() -> bool:
            sound = ear.hear()
            return sound.frequency == pytest.approx(440, rel=0.01) and sound.rms == pytest.approx(0.2, rel=0.05)

        await until("it is heard as it was played", right)
    finally:
        await asyncio.gather(ear.close(), tone.close())


async def test_a_colour_filmed_into_a_track_is_seen_from_it():
    camera = Camera(RED)
    eye = Eye(camera.track)
    try:
        await until("it is seen", lambda: eye.frames > 3 and eye.sees(RED))
        assert eye.size == (320, 180)
        assert not eye.sees((40, 200, 40))
    finally:
        await asyncio.gather(eye.close(), camera.close())
