// A room that says it is recorded, and an Egress API that begins and ends that: between the page and the server, so that
// what the page does of it is tried without a recorder.

import { Room, RoomUpdate, SignalResponse } from '@livekit/protocol';

export class RecordedRoom {
  /** What the page asked the Egress API. @type {{ method: string, body: object, bearer: string }[]} */
  asked = [];
  /** What it answers instead of doing it. @type {{ status: number, body: object } | null} */
  refusal = null;
  #on = false;
  #sockets = new Set();

  /** @param {import('playwright-core').BrowserContext} context */
  async route(context) {
    await context.routeWebSocket(/\/rtc\?/, (socket) => {
      this.#sockets.add(socket);
      socket.connectToServer().onMessage((frame) => socket.send(typeof frame === 'string' ? frame : this.#marked(frame)));
    });
    await context.route('**/twirp/livekit.Egress/*', async (route) => {
      const request = route.request();
      const method = new URL(request.url()).pathname.split('/').at(-1) ?? '';
      const bearer = (await request.headerValue('authorization'))?.replace('Bearer ', '') ?? '';
      this.asked.push({ method, body: request.postDataJSON(), bearer });
      const { status, body } = this.refusal ?? { status: 200, body: ANSWERS[method] };
      await route.fulfill({ status, json: body });
      if (this.refusal) return;
      if (method === 'StartRoomCompositeEgress') this.isRecorded(true);
      if (method === 'StopEgress') this.isRecorded(false);
    });
  }

  /** @param {boolean} on */
  isRecorded(on) {
    this.#on = on;
    for (const socket of this.#sockets) socket.send(Buffer.from(roomUpdate(new Room(), on).toBinary()));
  }

  /** What the server says of its room, with what it does not know. @param {Buffer} frame */
  #marked(frame) {
    const { case: kind, value } = SignalResponse.fromBinary(frame).message;
    return kind === 'roomUpdate' && value.room ? Buffer.from(roomUpdate(value.room, this.#on).toBinary()) : frame;
  }
}

/** @param {Room} room @param {boolean} activeRecording */
function roomUpdate(room, activeRecording) {
  room.activeRecording = activeRecording;
  return new SignalResponse({ message: { case: 'roomUpdate', value: new RoomUpdate({ room }) } });
}

const ANSWERS = {
  StartRoomCompositeEgress: { egress_id: 'EG_running', status: 'EGRESS_STARTING' },
  ListEgress: { items: [{ egress_id: 'EG_running', status: 'EGRESS_ACTIVE' }, { egress_id: 'EG_ending', status: 'EGRESS_ENDING' }] },
  StopEgress: { egress_id: 'EG_running', status: 'EGRESS_ENDING' },
};
