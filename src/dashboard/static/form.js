// Forms: labelled fields, and what the server found wrong, by its pointers, beside the fields they point at.

import { get } from './api.js';
import { h } from './dom.js';
import { parse } from './exact.js';

/** A labelled control. `pointers` are those of the server's errors that it shows. */
export function field(label, control, { hint, pointers = [] } = {}) {
  const id = `f-${label.toLowerCase().replaceAll(/[^a-z]+/g, '-')}`;
  control.id = id;
  control.dataset.pointers = pointers.join(' ');
  if (hint) control.setAttribute('aria-describedby', `${id}-hint`);
  const words = hint && h('p', { class: 'hint', id: `${id}-hint` }, hint);
  return h('div', { class: `field${control.type === 'checkbox' ? ' check' : ''}` }, h('label', { for: id }, label), control, words);
}

/** A form that says what went wrong. `submit` may throw a Problem. */
export function form({ submit, action, label, kind = '' }, ...children) {
  const trouble = h('div', { class: 'trouble', role: 'alert' });
  const button = h('button', { type: 'submit' }, action);
  const element = h('form', { 'aria-label': label, class: kind, novalidate: true }, children, trouble, h('p', { class: 'actions' }, button));
  element.addEventListener('submit', async (event) => {
    event.preventDefault();
    clear(element, trouble);
    button.disabled = true;
    try {
      await submit();
    } catch (problem) {
      show(element, trouble, problem);
    } finally {
      button.disabled = false;
    }
  });
  return element;
}

function clear(element, trouble) {
  trouble.replaceChildren();
  for (const control of element.querySelectorAll('[aria-invalid]')) control.removeAttribute('aria-invalid');
}

function show(element, trouble, problem) {
  const errors = problem.errors ?? [];
  trouble.append(...problemWords(problem));
  const controls = [...element.querySelectorAll('[data-pointers]')];
  const wrong = controls.filter((control) => control.dataset.pointers.split(' ').filter(Boolean)
    .some((pointer) => errors.some(({ field: at }) => at === pointer || at.startsWith(`${pointer}/`))));
  wrong.forEach((control) => control.setAttribute('aria-invalid', 'true'));
  wrong[0]?.focus();
}

/** A problem in words: what, and where. */
export function problemWords(problem) {
  const at = ({ field: pointer, message }) => h('li', {}, pointer ? [h('code', {}, pointer), ' '] : '', message);
  const named = problem.trackingId && h('p', { class: 'hint' }, 'Its line in the server’s log: ', h('code', {}, problem.trackingId));
  const words = problem.code === 'VALIDATION_FAILED' ? 'This was not accepted:' : problem.message;
  return [h('p', {}, words), (problem.errors ?? []).length > 0 && h('ul', {}, problem.errors.map(at)), named].filter(Boolean);
}

/** Does `work`, and says in `trouble` what went wrong with it: what is to follow when it is done is the end of `work`. */
export async function attempt(trouble, work) {
  try {
    await work();
    trouble.replaceChildren();
  } catch (problem) {
    if (problem.name !== 'AbortError') trouble.replaceChildren(...problemWords(problem));
  }
}

/** JSON that a person wrote; throws what is wrong with it, as the server would. */
export function json(text, pointer) {
  try {
    return parse(text);
  } catch (error) {
    throw Object.assign(new Error('This is not JSON yet.'), { errors: [{ field: pointer, message: error.message }] });
  }
}

/** Asks before something that cannot be undone. */
export function confirm(question, action) {
  return new Promise((resolve) => {
    const dialog = h('dialog', { 'aria-label': question, onclose: () => { dialog.remove(); resolve(dialog.returnValue === 'yes'); } },
      h('form', { method: 'dialog' }, h('p', {}, question), h('p', { class: 'actions' },
        h('button', { value: 'no', class: 'quiet' }, 'Cancel'), h('button', { value: 'yes', class: 'danger' }, action))));
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** What a person wrote as a list: separated by commas or white space. */
function listed(control) {
  return control.value.split(/[\s,]+/).filter(Boolean);
}

/** Who may come as a gateway: its fields, and what they say. */
export function access({ allowedAddresses = [], certificateNames = [] } = {}) {
  const control = (list) => h('input', { type: 'text', autocomplete: 'off', spellcheck: 'false', value: list.join(', ') });
  const [addresses, names] = [control(allowedAddresses), control(certificateNames)];
  return {
    fields: [
      field('Allowed addresses', addresses, { pointers: ['/allowedAddresses'], hint: 'Networks such as 10.1.0.0/16, separated by commas; empty for any' }),
      field('Certificate names', names, { pointers: ['/certificateNames'], hint: 'Of client certificates that prove it, separated by commas' }),
    ],
    value: () => ({ allowedAddresses: listed(addresses), certificateNames: listed(names) }),
  };
}

export function choice(options, value = '') {
  return h('select', {}, options.map(([of, words]) => h('option', { value: of, selected: of === value }, words)));
}

/** As many gateways as are offered by name. */
const OFFERED = 100;

/** A control for a gateway: its id, or a part of its name to choose from; a whole name counts as well. */
export function gatewayChoice(signal, value, type = 'search') {
  const offered = h('datalist', { id: 'gateways' });
  const control = h('input', { type, autocomplete: 'off', spellcheck: 'false', list: 'gateways', value });
  let known = [];
  const offer = async () => {
    const found = await get('/api/v1/gateways', { search: control.value.trim(), limit: OFFERED }, signal).catch(() => ({ list: [] }));
    known = found.list;
    offered.replaceChildren(...known.map((one) => h('option', { value: one.id }, `${one.name} · ${one.displayName}`)));
  };
  control.addEventListener('input', offer);
  offer();
  return {
    control, offered,
    hint: 'Its id or name; type a part of it to choose',
    /** Names are unique within an organization alone: one that several have is nobody's. */
    id: async () => {
      const text = control.value.trim();
      if (text === '' || /^[\da-f-]{36}$/i.test(text)) return text;
      await offer();
      const same = known.filter(({ name }) => name === text);
      return same.length === 1 ? same[0].id : text;
    },
  };
}
