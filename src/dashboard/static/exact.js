// JSON whose numbers stay as they are written: those of schemas and payloads may be more than JavaScript's can hold.

/** Reads JSON. A number that JavaScript would write otherwise, such as 9223372036854775807 or 1.0, becomes a raw one. */
export function parse(text) {
  if (!JSON.rawJSON) throw new Error('This browser would change large numbers; one of 2025 or later does not.');
  return JSON.parse(text, (_, value, { source }) => (typeof value === 'number' && String(value) !== source ? JSON.rawJSON(source) : value));
}
