// The page's life: lobby, joining, call, ending, and round again. One screen is on show at a time; its name is always on
// the root element as `data-state`.

import { needsInvitation, readAccess, requestToken } from './access.js';
import { CallView } from './call.js';
import { Lobby } from './lobby.js';
import { toast } from './notices.js';
import { Session } from './session.js';
import { connectingView, endingView, outcomeOfError } from './states.js';

/** @typedef {{ element: HTMLElement, focus?: () => void, destroy?: () => void }} Screen */

const root = /** @type {HTMLElement} */ (document.getElementById('app'));
const access = readAccess();

/** @type {Screen | null} */
let screen = null;
/** @type {Session | null} */
let session = null;
/** @type {import('./lobby.js').Wants} */
let last = { name: '', room: access.room, microphone: true, camera: true, tracks: [] };

/**
 * @param {string} state
 * @param {Screen} next
 */
function show(state, next) {
  screen?.destroy?.();
  screen = next;
  root.dataset.state = state;
  root.replaceChildren(next.element);
  next.focus?.();
}

/** @param {import('./states.js').Outcome} outcome */
function end(outcome) {
  session?.close();
  session = null;
  show(outcome.state, endingView(outcome, { rejoin: () => void join({ ...last, tracks: [] }), lobby }));
}

function lobby() {
  show('lobby', new Lobby({ ...access, room: last.room }, (wants) => void join(wants)));
  void needsInvitation(access).then((needed) => {
    if (needed && root.dataset.state === 'lobby') end({ state: 'invitation-needed', detail: '' });
  });
}

/** @param {import('./lobby.js').Wants} wants */
async function join(wants) {
  last = wants;
  /** @type {CallView | null} */
  let call = null;
  const mine = new Session({
    onChange: () => call?.update(),
    onState: (state) => {
      if (!call) return;
      if (state === 'connected' && root.dataset.state === 'reconnecting') toast('You are back in the call.', { tone: 'good' });
      root.dataset.state = state;
      call.update();
    },
    onEnd: end,
    onChat: (line) => call?.addChat(line),
    onProblem: (problem) => toast(`${problem.title}. ${problem.text}`, { tone: 'bad' }),
  });
  const release = () => {
    for (const track of wants.tracks) track.stop();
  };
  session = mine;
  let cancelled = false;
  show('connecting', connectingView(wants.room, () => {
    cancelled = true;
    release();
    mine.close();
    lobby();
  }));
  try {
    const granted = await requestToken(access, wants.room, wants.name);
    if (cancelled) return;
    await mine.join(granted, wants);
    if (cancelled) return;
    call = new CallView(mine, granted);
    show('connected', call);
    call.update();
  } catch (error) {
    release();
    if (cancelled) return;
    const outcome = outcomeOfError(error);
    if (outcome) end(outcome);
    else lobby();
  }
}

// Another invitation pasted into the same tab changes only the fragment.
addEventListener('hashchange', () => location.reload());

if (typeof RTCPeerConnection === 'undefined') end({ state: 'unsupported', detail: '' });
else lobby();
