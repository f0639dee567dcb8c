"""Tones and colours with known values, and the instruments that read them back."""

import asyncio
import collections
import contextlib
import dataclasses

import numpy as np
from livekit import rtc

RED = (200, 40, 40)
BLUE = (40, 60, 200)

SAMPLE_RATE = 48_000

# The SDK hands each frame to whatever of the process waits for one, under Python's one lock. With its usual 10 ms a few dozen
# ears take a core, tones falter, and what signalling says is read late.
FRAME_MS = 100
FRAME_SAMPLES = SAMPLE_RATE * FRAME_MS // 1000


def sine(frequency: float, rms: float, first: int, count: int) -> np.ndarray:
    """`count` samples of a tone from sample `first` on, full scale being 1."""
    moments = np.arange(first, first + count) / SAMPLE_RATE
    return np.sqrt(2) * rms * np.sin(2 * np.pi * frequency * moments)


@dataclasses.dataclass(frozen=True)
class Sound:
    frequency: float
    rms: float


def analyse(samples: np.ndarray) -> Sound:
    """The loudest frequency, and the energy of everything."""
    if len(samples) < FRAME_SAMPLES or not np.any(samples):
        return Sound(0.0, 0.0)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    peak = int(np.argmax(spectrum[1:-1])) + 1
    # A parabola through the three highest bins finds the tone between them.
    left, top, right = np.log(spectrum[peak - 1 : peak + 2] + 1e-12)
    shift = (left - right) / (2 * (left - 2 * top + right) or 1)
    rms = float(np.sqrt(np.mean(samples**2)))
    return Sound(float((peak + shift) * SAMPLE_RATE / len(samples)), rms)


class Tone:
    """A microphone that hears one steady tone."""

    def __init__(self, frequency: float, rms: float = 0.2) -> None:
        self._source = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=5 * FRAME_MS)
        self.track = rtc.LocalAudioTrack.create_audio_track("tone", self._source)
        self._task = asyncio.create_task(self._play(frequency, rms))

    async def close(self) -> None:
        await _cancelled(self._task)
        await self._source.aclose()

    async def _play(self, frequency: float, rms: float) -> None:
        first = 0
        while True:
            samples = (sine(frequency, rms, first, FRAME_SAMPLES) * 32767).astype(np.int16)
            # Returns when the source's queue has room: that is the clock.
            await self._source.capture_frame(rtc.AudioFrame(samples.tobytes(), SAMPLE_RATE, 1, FRAME_SAMPLES))
            first += FRAME_SAMPLES


class Ear:
    """What was heard of a track lately, and how loud each tenth of a second was since the last `mark`."""

    def __init__(self, track: rtc.Track) -> None:
        self._stream = rtc.AudioStream(track, sample_rate=SAMPLE_RATE, num_channels=1, frame_size_ms=FRAME_MS)
        self._recent: collections.deque[np.ndarray] = collections.deque(maxlen=5)
        self.tenths: list[float] = []
        # When something was first and last heard, on the loop's clock.
        self.heard_since: float | None = None
        self.heard_at: float | None = None
        self._task = asyncio.create_task(self._listen())

    def mark(self) -> None:
        self.tenths = []

    def hear(self) -> Sound:
        """The last half second."""
        if len(self._recent) < self._recent.maxlen:
            return Sound(0.0, 0.0)
        return analyse(np.concatenate(self._recent))

    async def close(self) -> None:
        await _cancelled(self._task)
        await self._stream.aclose()

    async def _listen(self) -> None:
        async for event in self._stream:
            samples = np.frombuffer(event.frame.data, dtype=np.int16).astype(np.float64) / 32767
            self._recent.append(samples)
            if np.abs(samples).max() > AUDIBLE:
                self.heard_at = asyncio.get_running_loop().time()
                self.heard_since = self.heard_since or self.heard_at
            self.tenths.append(float(np.sqrt(np.mean(samples**2))))


class Camera:
    """A camera that films one colour."""

    def __init__(
        self, colour: tuple[int, int, int], width: int = 320, height: int = 180, fps: int = 15, metadata=None
    ) -> None:
        self._source = rtc.VideoSource(width, height)
        self.track = rtc.LocalVideoTrack.create_video_track("colour", self._source)
        pixels = np.empty((height, width, 4), dtype=np.uint8)
        pixels[:] = (*colour, 255)
        self._frame = rtc.VideoFrame(width, height, rtc.VideoBufferType.RGBA, bytearray(pixels.tobytes()))
        # Goes along with every frame.
        self._metadata: rtc.FrameMetadata | None = metadata
        self._task = asyncio.create_task(self._film(1 / fps))

    async def close(self) -> None:
        await _cancelled(self._task)
        await self._source.aclose()

    async def _film(self, interval: float) -> None:
        while True:
            self._source.capture_frame(self._frame, metadata=self._metadata)
            await asyncio.sleep(interval)


class Eye:
    """What a video track shows, and how many frames came since the last `mark`."""

    def __init__(self, track: rtc.Track) -> None:
        self._stream = rtc.VideoStream(track, format=rtc.VideoBufferType.RGBA, capacity=2)
        self.frames = 0
        self.size: tuple[int, int] | None = None
        self.colour: np.ndarray | None = None
        self.metadata: rtc.FrameMetadata | None = None
        self._task = asyncio.create_task(self._watch())

    def mark(self) -> None:
        self.frames = 0

    def sees(self, colour: tuple[int, int, int]) -> bool:
        return self.colour is not None and bool(np.all(np.abs(self.colour - colour) < COLOUR_TOLERANCE))

    async def close(self) -> None:
        await _cancelled(self._task)
        await self._stream.aclose()

    async def _watch(self) -> None:
        async for event in self._stream:
            frame = event.frame
            pixels = np.frombuffer(frame.data, dtype=np.uint8).reshape(frame.height, frame.width, 4)
            middle = pixels[frame.height // 4 : frame.height * 3 // 4, frame.width // 4 : frame.width * 3 // 4, :3]
            self.colour = middle.reshape(-1, 3).mean(axis=0)
            self.size = (frame.width, frame.height)
            self.metadata = event.metadata
            self.frames += 1


async def _cancelled(task: asyncio.Task) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task


# Far below any tone of the tests, and above what fades out.
AUDIBLE = 0.05

# Compression and two conversions of the colour space; the colours of the tests are farther apart.
COLOUR_TOLERANCE = 30
