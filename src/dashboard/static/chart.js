// Lines over time, as SVG. Series differ in their dashes and are named, so that colour is not needed to tell them apart.

import { h, number, s } from './dom.js';

const SPANS_SECONDS = [60, 120, 300, 600];
const SIZE = { width: 520, height: 168, left: 44, right: 8, top: 10, bottom: 22 };

/** `series`: `[{name, value(beat)}]`, the first solid, the second dashed; a value may be `null`. */
export function chart({ title, unit, series }) {
  const plot = s('svg', { viewBox: `0 0 ${SIZE.width} ${SIZE.height}`, role: 'img', class: 'plot' });
  const values = series.map(() => h('span', { class: 'value' }, '–'));
  const legend = h('ul', { class: 'legend' }, series.map(({ name }, index) =>
    h('li', {}, key(index), ` ${name} `, values[index])));
  const element = h('figure', { class: 'card chart' },
    h('figcaption', {}, h('h2', {}, title, h('small', {}, ` ${unit}`)), legend), plot);
  return {
    element,
    show(beats) {
      const seconds = span(beats);
      const lines = series.map(({ value }) => beats.map((beat) => ({ time: beat.time, value: value(beat) })));
      lines.forEach((line, index) => { values[index].textContent = number(line.at(-1)?.value ?? null); });
      plot.setAttribute('aria-label', summary(title, unit, series, lines));
      plot.replaceChildren(...drawn(lines, beats.at(-1)?.time ?? Date.now(), seconds));
    },
  };
}

/** How much of the past to show: what is known of it, in whole steps. */
function span(beats) {
  const known = beats.length === 0 ? 0 : (beats.at(-1).time - beats[0].time) / 1000;
  return SPANS_SECONDS.find((seconds) => seconds >= known) ?? SPANS_SECONDS.at(-1);
}

function key(index) {
  return s('svg', { viewBox: '0 0 24 8', width: 24, height: 8, 'aria-hidden': 'true' },
    s('line', { x1: 1, x2: 23, y1: 4, y2: 4, class: `line line-${index}` }));
}

function summary(title, unit, series, lines) {
  const told = series.map(({ name }, index) => {
    const known = lines[index].map(({ value }) => value).filter((value) => value !== null);
    return known.length === 0 ? `${name}: nothing yet` : `${name}: now ${number(known.at(-1))}, at most ${number(Math.max(...known))}`;
  });
  return `${title} (${unit}). ${told.join('. ')}.`;
}

function drawn(lines, now, seconds) {
  const from = now - seconds * 1000;
  const known = lines.flat().filter(({ time, value }) => time >= from && value !== null).map(({ value }) => value);
  const step = nice(Math.max(1, ...known) / 4);
  const top = step * Math.max(1, Math.ceil(Math.max(0, ...known) / step));
  const x = (time) => SIZE.left + ((time - from) / (now - from)) * (SIZE.width - SIZE.left - SIZE.right);
  const y = (value) => SIZE.height - SIZE.bottom - (value / top) * (SIZE.height - SIZE.top - SIZE.bottom);
  return [...grid(x, y, top, step, now, seconds), ...lines.map((line, index) =>
    s('path', { class: `line line-${index}`, d: path(line.filter(({ time }) => time >= from), x, y) }))];
}

function* grid(x, y, top, step, now, seconds) {
  for (let value = 0; value <= top + step / 2; value += step) {
    yield s('line', { class: 'grid', x1: SIZE.left, x2: SIZE.width - SIZE.right, y1: y(value), y2: y(value) });
    yield s('text', { class: 'tick', x: SIZE.left - 6, y: y(value) + 4, 'text-anchor': 'end' }, number(value));
  }
  for (const share of [0, 0.5, 1]) {
    const back = (1 - share) * seconds;
    const words = back >= 60 ? `${number(back / 60)} min ago` : `${back} s ago`;
    const anchor = ['start', 'middle', 'end'][share * 2];
    const at = x(now - (1 - share) * seconds * 1000);
    yield s('text', { class: 'tick', x: at, y: SIZE.height - 4, 'text-anchor': anchor }, back === 0 ? 'now' : words);
  }
}

/** A line with a gap where nothing is known, or where the server was away. */
function path(points, x, y) {
  let d = '';
  let before = null;
  for (const point of points) {
    if (point.value === null) { before = null; continue; }
    const goesOn = before !== null && point.time - before.time < 5000;
    d += `${goesOn ? 'L' : 'M'}${x(point.time).toFixed(1)} ${y(point.value).toFixed(1)}`;
    // A point alone is seen too.
    if (!goesOn) d += 'h.5';
    before = point;
  }
  return d;
}

/** The next of 1, 2, 5, 10, … */
function nice(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
}
