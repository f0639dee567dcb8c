// One recording: what there is to play, who was there when, and the chat at its time. Everything people wrote or are called
// is shown as text.

import { h, setText } from '../dom.js';
import { icon } from '../icons.js';
import { addressOf } from './api.js';
import { ChatLog } from './chatlog.js';
import { Player } from './player.js';
import { spanBar } from './spans.js';
import { CODEC, GAP, SOURCE, clock, counted, day, iso, length, seconds, size, state } from './words.js';

/** @typedef {import('./api.js').Recording} Recording */
/** @typedef {import('./api.js').TrackFile} TrackFile */
/** @typedef {import('./player.js').Film} Film */

export class RecordingView {
  #recording;
  #from;
  #until;
  #player;
  /** @type {Map<string, HTMLElement>} the entries of what can be played, by file */
  #entries = new Map();

  /**
   * @param {Recording} recording
   * @param {() => void} onFailure something did not play
   */
  constructor(recording, onFailure) {
    this.#recording = recording;
    this.#from = recording.began_us ?? 0;
    this.#until = Math.max(this.#from + (recording.duration_us ?? 0), ...recording.files.map((file) => file.ended_us ?? 0));
    const chat = new ChatLog(recording.chat, this.#from, (at) => this.#player.goTo(at));
    this.#player = new Player({ began_us: this.#from, onMoment: (at, isPlaying) => chat.reached(at, isPlaying), onFilm: (film) => this.#marked(film), onFailure });
    const name = recording.room || recording.id;
    document.title = `${name} – Recordings – Plenary`;
    const films = recording.files.toSorted((a, b) => a.name.localeCompare(b.name) || a.zero_us - b.zero_us);
    const entries = [...recording.composed.map((video) => this.#composed(video)), ...films.map((file) => this.#track(file))];
    this.element = h(
      'article',
      { class: 'recording-view' },
      h('header', { class: 'recording-head' }, h('a', { class: 'back', href: '#' }, icon('left'), 'All recordings'), h('h1', { tabindex: -1, dir: 'auto', 'data-testid': 'room' }, name), h('p', { class: 'quiet' }, this.#facts()), ...this.#notes()),
      this.#player.element,
      chat.element,
      h('section', { class: 'tracks', 'aria-labelledby': 'tracks-title' }, h('h2', { id: 'tracks-title' }, 'What to play'), h('ul', { role: 'list' }, ...entries)),
      this.#people(),
    );
    const first = this.#firstFilm(films);
    if (first) this.#player.show(first);
    else this.#player.element.hidden = true;
  }

  destroy() {
    this.#player.destroy();
  }

  #facts() {
    const { began_us: began, duration_us: duration, bytes, epochs } = this.#recording;
    const facts = [
      began === null ? null : day(began),
      duration === null ? null : `${length(duration)} long`,
      state(this.#recording),
      size(bytes),
      epochs > 1 ? `recorded by ${epochs} nodes in turn` : null,
    ];
    return facts.filter((fact) => fact !== null).join(' · ');
  }

  #notes() {
    const { state, strays, left_out: leftOut, chat, composed, composing, elsewhere } = this.#recording;
    const notes = [
      state === 'recording' ? 'This is being recorded. A file can be played when it is complete.' : null,
      state === 'interrupted' ? 'Nobody ended this recording in order. What was left unfinished is made whole when a node starts, or by “plenary recordings repair”.' : null,
      elsewhere.length ? `Parts of it are not here but in the directory of ${elsewhere.map((node) => node ?? 'another node').join(' and of ')}.` : null,
      state !== 'recording' && composing ? 'It is being composed into one video. Here are its tracks meanwhile.' : null,
      state !== 'recording' && composed.length === 0 && !composing ? 'It has not been composed into one video; here are its tracks.' : null,
      leftOut ? `${counted(leftOut, 'fact')} of its session files (${chat.length ? 'messages, ' : ''}tracks, gaps or people) are more than this page shows.` : null,
      strays.length ? `${counted(strays.length, 'file')} that no session file tells of: ${strays.slice(0, STRAYS_SHOWN).join(', ')}${strays.length > STRAYS_SHOWN ? ', …' : ''}` : null,
    ];
    return notes.filter((note) => note !== null).map((note) => h('p', { class: 'note' }, note));
  }

  /** @param {import('./api.js').Video} video */
  #composed(video) {
    const { file, name, bytes } = video;
    const film = this.#filmOfComposed(video);
    return this.#entry(file, name, 'Composed meeting', `${name}, ${size(bytes)}`, film, film ? null : 'This browser does not play it. Download it to watch it in a player.', []);
  }

  /** @param {TrackFile} track */
  #track(track) {
    const { file, zero_us: zero, ended_us: ended, codec, bytes } = track;
    const until = ended ?? this.#until;
    const facts = [CODEC[codec] ?? codec, ended === null ? `from ${clock(zero)}` : `${clock(zero)}–${clock(ended)}`, size(bytes)];
    const film = this.#filmOf(track);
    const muted = track.muted?.filter((span) => (span.until_us ?? this.#until) > zero && span.from_us < until) ?? [];
    const bars = [
      { kind: /** @type {const} */ ('there'), from_us: zero, until_us: until },
      ...muted.map((span) => ({ kind: /** @type {const} */ ('muted'), from_us: Math.max(zero, span.from_us), until_us: Math.min(until, span.until_us ?? until) })),
      ...track.gaps.map((gap) => ({ kind: /** @type {const} */ ('gap'), from_us: zero + gap.from_us, until_us: zero + gap.until_us })),
    ];
    return this.#entry(file, file, titleOf(track), facts.join(', '), film, film ? null : whyNot(track), [
      spanBar(bars, this.#from, this.#until),
      flaws(track, muted),
    ]);
  }

  /**
   * @param {string} file
   * @param {string} name it is kept under when it is downloaded
   * @param {string} title
   * @param {string} facts
   * @param {Film | null} film
   * @param {string | null} why it cannot be played
   * @param {(Node | null)[]} more
   */
  #entry(file, name, title, facts, film, why, more) {
    const here = film !== null || why?.includes('ownload');
    const play = film ? h('button', { type: 'button', class: 'play', 'aria-pressed': 'false', 'data-testid': 'play', onclick: () => this.#player.show(film, true) }, icon('play'), h('span', { dir: 'auto' }, title)) : h('span', { class: 'play', dir: 'auto' }, title);
    const download = here ? h('a', { class: 'icon-button', href: addressOf(this.#recording.id, file), download: name, 'aria-label': `Download ${title}`, title: 'Download' }, icon('download')) : null;
    const entry = h('li', { class: 'track', 'data-testid': 'track', 'data-file': file }, h('div', { class: 'track-head' }, play, download), h('p', { class: 'quiet' }, facts), why ? h('p', { class: 'why-not' }, why) : null, ...more);
    this.#entries.set(file, entry);
    return entry;
  }

  /** @param {TrackFile[]} tracks */
  #firstFilm(tracks) {
    const composed = this.#recording.composed.map((video) => this.#filmOfComposed(video));
    const films = [...composed, ...tracks.map((track) => this.#filmOf(track))].filter((film) => film !== null);
    return films.find((film) => !film.isSound) ?? films[0];
  }

  /** @param {import('./api.js').Video} video @returns {Film | null} */
  #filmOfComposed({ file, name }) {
    const kind = name.split('.').at(-1) ?? '';
    if (!plays(COMPOSED[kind] ?? '')) return null;
    return { file, address: addressOf(this.#recording.id, file), title: 'Composed meeting', zero_us: this.#from, isSound: kind === 'ogg' || kind === 'mp3', gaps: [], muted: [] };
  }

  /** @param {TrackFile} track @returns {Film | null} */
  #filmOf(track) {
    const { file, codec, zero_us, gaps, muted } = track;
    const type = PLAYED[codec];
    if (track.state !== 'complete' || !type || !plays(type)) return null;
    return { file, address: addressOf(this.#recording.id, file), title: titleOf(track), zero_us, isSound: codec === 'opus', gaps, muted: muted ?? [] };
  }

  #people() {
    const { people } = this.#recording;
    const rows = people.map(({ identity, name, stays }) => {
      const spans = stays.map(({ from_us, until_us }) => `${clock(from_us)}–${until_us === null ? 'the end' : clock(until_us)}`);
      return h(
        'li',
        { 'data-testid': 'person' },
        h('p', { class: 'person-line' }, h('strong', { dir: 'auto' }, name || identity), name && name !== identity ? h('span', { class: 'quiet', dir: 'auto' }, identity) : null),
        spanBar(stays.map((stay) => ({ ...stay, kind: /** @type {const} */ ('there') })), this.#from, this.#until),
        h('p', { class: 'quiet' }, spans.join(', ')),
      );
    });
    return h('section', { class: 'people', 'aria-labelledby': 'people-title' }, h('h2', { id: 'people-title' }, `Who was there (${people.length})`), people.length ? h('ul', { role: 'list' }, ...rows) : h('p', { class: 'quiet' }, 'Nobody.'));
  }

  /** @param {Film} film */
  #marked({ file }) {
    for (const [of, entry] of this.#entries) entry.querySelector('button.play')?.setAttribute('aria-pressed', String(of === file));
  }
}

/** @param {TrackFile} track */
function titleOf({ name, identity, source }) {
  return `${name || identity || 'Unknown person'} · ${SOURCE[source] ?? 'Track'}`;
}

/** @param {TrackFile} track */
function whyNot({ state, codec, file }) {
  if (state === 'unfinished') return 'Not complete yet.';
  if (state === 'missing') return 'The file is not here. Another node may have it.';
  return `This browser does not play ${CODEC[codec] ?? codec}${file.endsWith('.mkv') ? ' in Matroska files' : ''}. Download it to watch it in a player.`;
}

/**
 * What is missing in a track, and when it was muted, in words.
 * @param {TrackFile} track
 * @param {import('./api.js').Span[]} muted
 */
function flaws({ gaps, zero_us: zero }, muted) {
  if (gaps.length === 0 && muted.length === 0) return null;
  const title = [muted.length ? `muted ${counted(muted.length, 'time')}` : null, gaps.length ? counted(gaps.length, 'gap') : null].filter((one) => one !== null).join(', ');
  const lines = [
    ...muted.map((span) => ({ at: span.from_us, words: `muted ${span.until_us === null ? 'to the end' : `until ${clock(span.until_us)}`}` })),
    ...gaps.map((gap) => ({ at: zero + gap.from_us, words: `${seconds(gap.until_us - gap.from_us)} missing: ${GAP[gap.reason] ?? 'reason unknown'}` })),
  ].sort((a, b) => a.at - b.at);
  const shown = lines.slice(0, FLAWS_SHOWN).map(({ at, words }) => h('li', {}, h('time', { datetime: iso(at) }, clock(at)), ` ${words}`));
  const rest = lines.length - shown.length;
  const summary = h('summary', {});
  setText(summary, title.charAt(0).toUpperCase() + title.slice(1));
  return h('details', { class: 'flaws', 'data-testid': 'flaws' }, summary, h('ul', {}, ...shown, rest > 0 ? h('li', {}, `and ${rest} more`) : null));
}

/** @param {string} type */
function plays(type) {
  return document.createElement('video').canPlayType(type) !== '';
}

/** @type {Record<string, string>} what the composer makes, by the end of its name */
const COMPOSED = { mp4: 'video/mp4; codecs="avc1.42E01E, mp4a.40.2"', webm: 'video/webm; codecs="vp9, opus"', ogg: 'audio/ogg; codecs="opus"', mp3: 'audio/mpeg' };
/** @type {Record<string, string>} the files of tracks, by codec; H.264 is in Matroska, which not every browser plays */
const PLAYED = { opus: 'audio/webm; codecs="opus"', vp8: 'video/webm; codecs="vp8"', vp9: 'video/webm; codecs="vp09.00.10.08"', av1: 'video/webm; codecs="av01.0.04M.08"', h264: 'video/matroska; codecs="avc1.42E01F"' };

const STRAYS_SHOWN = 3;
const FLAWS_SHOWN = 50;
