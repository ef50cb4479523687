// Streams of the server, by the browser's own EventSource: it comes back by itself with `Last-Event-ID`, so nothing
// is missed over a lost connection or a restart. Where it gives up (an answer other than 200), this goes on.

import { call } from './api.js';

const STREAM = '/api/internal/v1/dashboard/stream';
/** How long to wait before a new attempt where EventSource gave up. */
const AGAIN_AFTER_MS = 2000;
/** As many as the server keeps. */
const BEATS_MAX = 600;

const signedIn = () => call('GET', '/api/internal/v1/session').catch(() => {});

/**
 * Follows a stream until `signal` says no more. `hear` has a function for each name of an event. Where EventSource gave
 * up it does not say why: `look` finds out, tells of it, and ends this by `signal` if there is nothing more to follow.
 */
export function follow({ query = {}, hear, tell, signal, look = signedIn }) {
  let source;
  let last = query.lastEventId ?? '';
  let timer;
  const open = () => {
    source = new EventSource(`${STREAM}?${new URLSearchParams({ ...query, lastEventId: last })}`);
    source.onopen = () => tell('live');
    source.onerror = async (event) => {
      if (event.data !== undefined) return; // An event of this name: the stream's last word.
      tell('lost');
      if (source.readyState !== EventSource.CLOSED || signal.aborted) return;
      await look();
      if (!signal.aborted) timer = setTimeout(open, AGAIN_AFTER_MS);
    };
    for (const [name, listen] of Object.entries(hear)) {
      source.addEventListener(name, (event) => {
        last = event.lastEventId || last;
        listen(JSON.parse(event.data), event.lastEventId);
      });
    }
  };
  signal.addEventListener('abort', () => { clearTimeout(timer); source.close(); });
  open();
}

/** The pulse of the server, for as long as somebody is signed in. */
export class Pulse extends EventTarget {
  beats = [];

  constructor(signal, tell) {
    super();
    follow({ hear: { beat: (beat) => this.#heard(beat) }, tell, signal });
  }

  #heard(beat) {
    this.beats.push({ ...beat, time: Date.parse(beat.at) });
    if (this.beats.length > BEATS_MAX) this.beats.shift();
    this.dispatchEvent(new CustomEvent('beat'));
  }
}
