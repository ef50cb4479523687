// Elements and words. Whatever comes from elsewhere becomes a text node or an attribute value, never markup.

const SVG = 'http://www.w3.org/2000/svg';

/** An element: attributes, `on…` listeners, children; `null`, `undefined` and `false` are left out. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An element of an SVG. */
export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/**
 * A table whose rows can be replaced while somebody reads it: what has the focus keeps it, by the row's key.
 * Columns: `{label, cell(row), number}`; the first is each row's heading. `empty` may be a function, asked each time.
 */
export function table({ caption, columns, key, empty }) {
  // The roles are said, as a narrow screen shows a row as a block and browsers then forget that it is one.
  const body = h('tbody', { role: 'rowgroup' });
  const head = h('tr', { role: 'row' }, columns.map(({ label, number }) => h('th', { scope: 'col', role: 'columnheader', class: number && 'number' }, label)));
  const element = h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption },
    h('table', { role: 'table' }, h('caption', { class: 'unseen' }, caption), h('thead', { role: 'rowgroup' }, head), body));
  const cell = (row) => ({ label, cell: content, number }, index) =>
    h(index === 0 ? 'th' : 'td', { scope: index === 0 && 'row', role: index === 0 ? 'rowheader' : 'cell', class: number && 'number', 'data-label': label }, content(row));
  const line = (row) => h('tr', { role: 'row', 'data-key': key(row) }, columns.map(cell(row)));
  return {
    element,
    show(rows) {
      const held = focused(body);
      body.replaceChildren(...rows.map(line));
      if (rows.length === 0) body.append(h('tr', { role: 'row' }, h('td', { role: 'cell', class: 'empty', colspan: columns.length }, typeof empty === 'function' ? empty() : empty)));
      held(body);
    },
    /** Puts a row on top, and lets go of those beyond `most`. */
    push(row, most) {
      body.querySelector('.empty')?.closest('tr').remove();
      body.prepend(line(row));
      while (body.rows.length > most) body.lastElementChild.remove();
    },
  };
}

/** What has the focus in a table's body, to be given back to what then stands there. */
function focused(body) {
  const row = document.activeElement?.closest('tr');
  if (!row || !body.contains(row)) return () => {};
  const controls = (of) => [...of.querySelectorAll('a, button')];
  const [key, index] = [row.dataset.key, controls(row).indexOf(document.activeElement)];
  return (now) => {
    const same = [...now.rows].find((candidate) => candidate.dataset.key === key);
    if (same) controls(same)[index]?.focus({ preventScroll: true });
  };
}

/** Buttons for the pages of a list. */
export function pager(label, limit, turn) {
  const where = h('span', { role: 'status' });
  let offset = 0;
  const to = (next) => () => { offset = Math.max(0, next()); turn(); };
  const previous = h('button', { type: 'button', class: 'quiet', onclick: to(() => offset - limit) }, '← Previous');
  const next = h('button', { type: 'button', class: 'quiet', onclick: to(() => offset + limit) }, 'Next →');
  return {
    element: h('nav', { class: 'pager', 'aria-label': label }, where, previous, next),
    limit,
    get offset() { return offset; },
    reset() { offset = 0; },
    /** `total` elements in all. Steps back when the page asked for is gone. */
    show(total) {
      const last = Math.max(0, Math.ceil(total / limit) - 1) * limit;
      if (offset > last) { offset = last; turn(); return; }
      const text = total === 0 ? 'none' : `${number(offset + 1)}–${number(Math.min(offset + limit, total))} of ${number(total)}`;
      if (where.textContent !== text) where.textContent = text;
      previous.disabled = offset === 0;
      next.disabled = offset + limit >= total;
    },
  };
}

/** A state: a symbol and a word, so that it is not told by colour alone. */
export function state(kind, text) {
  const symbol = { good: '●', wait: '◐', bad: '▲', none: '○' }[kind];
  return h('span', { class: `state ${kind}` }, h('span', { 'aria-hidden': 'true' }, symbol), ` ${text}`);
}

/** A time: exact on request, short to read. */
export function time(text, words = clock) {
  return text ? h('time', { datetime: text, title: text }, words(text)) : '–';
}

/** An id: its beginning is seen, all of it is there to be copied and read out. */
export function id(text) {
  return text ? h('code', { title: text, class: text.length > 18 && 'cut' }, text) : '–';
}

/** Tells who cannot see it what has happened. */
export function say(text) {
  document.getElementById('said').textContent = text;
}

/** Runs `look` now and then again and again, until the page is left (`signal`); not while nobody sees it. */
export function repeat(ms, signal, look) {
  let timer;
  const round = async () => {
    clearTimeout(timer);
    if (!document.hidden) await look();
    if (!signal.aborted) timer = setTimeout(round, ms);
  };
  signal.addEventListener('abort', () => clearTimeout(timer));
  document.addEventListener('visibilitychange', () => { if (!document.hidden) round(); }, { signal });
  round();
  return round;
}

const NUMBER = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });
const CLOCK = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const DAY = new Intl.DateTimeFormat('en-GB', { day: '2-digit', month: 'short', hour: '2-digit', minute: '2-digit', second: '2-digit' });

export const number = (value) => (typeof value === 'number' ? NUMBER.format(value) : '–');
export const clock = (text) => CLOCK.format(new Date(text));
export const day = (text) => DAY.format(new Date(text));

export function bytes(value) {
  if (typeof value !== 'number') return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit += 1) value /= 1024;
  return `${NUMBER.format(value)} ${units[unit]}`;
}

export function duration(seconds) {
  if (typeof seconds !== 'number') return '–';
  for (const [unit, length] of [['d', 86400], ['h', 3600], ['min', 60]]) {
    if (seconds >= 2 * length) return `${NUMBER.format(Math.floor(seconds / length))} ${unit}`;
  }
  return `${NUMBER.format(Math.max(0, seconds))} s`;
}

export const ago = (text) => `${duration(Math.max(0, Math.round((Date.now() - new Date(text)) / 1000)))} ago`;
