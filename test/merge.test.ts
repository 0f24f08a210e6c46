import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { isSameButExpiry, LIFETIME_DRIFT_MS } from '../src/session/cookie.js';
import { type MergeSettings, merge, onlyExpiryMoved } from '../src/session/merge.js';
import { isPlainObject } from '../src/util/guards.js';

type Plain = Record<string, unknown>;

/** How many cases are compared with the recursive merge; `MERGE_RUNS=300000` for a long run. */
const RUNS = Number(process.env.MERGE_RUNS ?? 10_000);

const settings: MergeSettings = {
  same: (one, other) => JSON.stringify(one) === JSON.stringify(other),
  isDropped: () => false,
};

const merged = (seen: Plain, now: Plain, stored: Plain) => merge(seen, now, stored, settings);

/** Common keys, names of inherited properties, and keys that JavaScript orders differently. */
const key = fc
  .oneof(
    fc.constantFrom('a', 'b', 'user', 'cart'),
    fc.constantFrom('__proto__', 'constructor', 'prototype', 'toJSON', 'hasOwnProperty', 'valueOf'),
    fc.constantFrom('', '0', '1', '-1', '01', '1e3', '\u0000', '\ud800'),
    fc.string({ maxLength: 2 }),
  )
  // On Node 24 and 26, JSON.parse of {"\\":0} makes it read the key of a later {"\n":0} as a backslash, too.
  .filter((one) => one !== '\\');

const leafWithoutArray = fc.constantFrom<unknown>(null, true, 0, 1, '', 'x', {});
const leaf = fc.oneof(
  fc.constantFrom<unknown>(null, true, 0, 1, '', 'x', [], {}),
  fc.array(fc.oneof(fc.integer(), fc.dictionary(key, fc.integer(), { maxKeys: 2 })), {
    maxLength: 3,
  }),
);

const cookie = fc
  .record({
    originalMaxAge: fc.constantFrom<number | null>(null, 60_000, 3_600_000),
    expires: fc.constantFrom<string | null>(
      null,
      '2026-01-01T00:00:00.000Z',
      '2026-01-01T01:00:00.000Z',
      '2026-01-02T00:00:00.000Z',
    ),
    path: fc.constantFrom('/', '/app'),
    secure: fc.option(fc.boolean(), { nil: undefined }),
  })
  .map((fields) => JSON.parse(JSON.stringify(fields)));

/** Three versions of a session; mostly, the second and third come from a few edits of the first. */
function sidesOf(value: fc.Arbitrary<unknown>): fc.Arbitrary<[Plain, Plain, Plain]> {
  // Objects as `JSON.parse` returns them: `__proto__` is an own key like any other.
  const { object } = fc.letrec<{ value: unknown; object: Plain }>((tie) => ({
    value: fc.oneof({ maxDepth: 3, withCrossShrink: true }, value, tie('object')),
    object: fc.array(fc.tuple(key, tie('value')), { maxLength: 5 }).map(fromEntries),
  }));
  const session = fc
    .tuple(cookie, object)
    .map(
      ([fields, content]): Plain => fromEntries([...Object.entries(content), ['cookie', fields]]),
    );
  const edits = fc.array(
    fc.record({ at: fc.nat(), value: fc.option(value, { nil: undefined }), key }),
    { maxLength: 4 },
  );
  return fc
    .tuple(session, edits, edits, fc.option(session, { nil: undefined }))
    .map(([seen, here, there, other]) => [
      seen,
      here.reduce(edited, seen),
      other ?? there.reduce(edited, seen),
    ]);
}

const threeSides = sidesOf(leaf);
/** Arrays have their own rules; "arrays" below tests them. */
const threeSidesWithoutArrays = sidesOf(leafWithoutArray);

test('merging with an unchanged stored session returns the session of this request', () => {
  fc.assert(
    fc.property(threeSides, ([seen, now]) => {
      // A drift of `originalMaxAge` would be no change, but there is none here.
      expect(merged(seen, now, seen)).toEqual(now);
    }),
  );
});

test('a request that changed nothing leaves the stored session as it is', () => {
  fc.assert(
    fc.property(threeSides, ([seen, , stored]) => {
      expect(merged(seen, seen, stored)).toEqual(stored);
    }),
  );
});

test('merging is idempotent: merging again with the result changes nothing', () => {
  fc.assert(
    fc.property(threeSidesWithoutArrays, ([seen, now, stored]) => {
      const once = merged(seen, now, stored);
      expect(merged(seen, now, once)).toEqual(once);
    }),
  );
});

test('changes of different paths commute, and none is lost', () => {
  fc.assert(
    fc.property(threeSides, ([seen, now, stored]) => {
      const here = changedPaths(seen, now);
      const there = changedPaths(seen, stored);
      fc.pre(here.every((one) => there.every((other) => !overlap(one, other))));
      const result = merged(seen, now, stored);
      expect(result).toEqual(merged(seen, stored, now));
      for (const path of here) expect(at(result, path)).toEqual(at(now, path));
      for (const path of there) expect(at(result, path)).toEqual(at(stored, path));
    }),
  );
});

test('the result contains only values of one of the two sides', () => {
  fc.assert(
    fc.property(threeSidesWithoutArrays, ([seen, now, stored]) => {
      const result = merged(seen, now, stored);
      for (const path of leafPaths(result)) {
        const value = JSON.stringify(at(result, path));
        const sources = [now, stored].map((side) => JSON.stringify(at(side, path)));
        expect(sources).toContain(value);
      }
    }),
  );
});

test('merging changes none of the three sessions and no prototype', () => {
  fc.assert(
    fc.property(threeSides, ([seen, now, stored]) => {
      const before = [seen, now, stored].map((side) => JSON.stringify(side));
      const result = merged(seen, now, stored);
      expect([seen, now, stored].map((side) => JSON.stringify(side))).toEqual(before);
      expect(Object.getPrototypeOf(result)).toBe(Object.prototype);
      expect(Object.keys(Object.prototype)).toEqual([]);
      for (const found of plainObjectsIn(result)) {
        expect(Object.getPrototypeOf(found)).toBe(Object.prototype);
      }
    }),
  );
});

test.each(['__proto__', 'constructor', 'prototype', 'toJSON', '', '0', 'hasOwnProperty'])(
  'the key %j is data: either side can set, change and delete it like any other key',
  (name) => {
    const none = parse({});
    const one = parse({ [`${name}`]: { isAdmin: true } }, name);
    const two = parse({ [`${name}`]: { isAdmin: true, rank: 2 } }, name);
    expect(merged(none, one, none)).toEqual(one);
    expect(merged(none, none, one)).toEqual(one);
    expect(merged(one, two, one)).toEqual(two);
    expect(merged(one, one, two)).toEqual(two);
    expect(merged(one, none, one)).toEqual(none);
    expect(merged(one, one, none)).toEqual(none);
    expect(Object.hasOwn(merged(none, none, one), name)).toBe(true);
    expect(Reflect.get({}, 'isAdmin')).toBeUndefined();
  },
);

test('an inherited property is no key: a session can gain and lose a key "constructor"', () => {
  const seen = { a: 1 };
  const now = JSON.parse('{"a":1,"constructor":"c"}');
  expect(merged(seen, now, { a: 2 })).toEqual(JSON.parse('{"a":2,"constructor":"c"}'));
  expect(merged(now, seen, { ...now, a: 2 })).toEqual({ a: 2 });
});

test('a key that both sides changed gets the value of this request', () => {
  expect(merged({ a: 1 }, { a: 2 }, { a: 3 })).toEqual({ a: 2 });
  expect(merged({ a: 1 }, {}, { a: 3 })).toEqual({});
  expect(merged({ a: 1 }, { a: 2 }, {})).toEqual({ a: 2 });
});

const arrays = (seen?: unknown, now?: unknown, stored?: unknown) => {
  const [before, mine, theirs] = [seen, now, stored].map(
    (array): Plain => ({
      in: { ...(array !== undefined && { array }) },
    }),
  );
  return at(merged(before ?? {}, mine ?? {}, theirs ?? {}), ['in', 'array']);
};
const none = undefined;

describe('arrays', () => {
  test.each([
    ['both appended', [1], [1, 2], [1, 3, 4], [1, 3, 4, 2]],
    [
      'both appended objects',
      [{ x: 1 }],
      [{ x: 1 }, { x: 2 }],
      [{ x: 1 }, {}],
      [{ x: 1 }, {}, { x: 2 }],
    ],
    ['this request appended, the other removed', [1, 2], [1, 2, 3], [2], [2, 3]],
    ['this request appended, the other emptied it', [1, 2], [1, 2, 3], [], [3]],
    ['this request appended, the other replaced it', [1], [1, 2], [7, 8], [7, 8, 2]],
    ['this request removed, the other appended', [1, 2], [2], [1, 2, 3], [2, 3]],
    ['this request emptied it, the other appended', [1], [], [1, 2], [2]],
    [
      'this request changed an element, the other appended',
      [{ x: 1 }],
      [{ x: 2 }],
      [{ x: 1 }, 3],
      [{ x: 2 }, 3],
    ],
    ['both changed it in the same way', [1], [1, 2], [1, 2], [1, 2]],
    ['both replaced it', [1], [2], [3], [2]],
    ['both removed an element', [1, 2, 3], [1, 3], [1, 2], [1, 3]],
    ['both moved a window over it', [1, 2], [2, 3], [2, 4], [2, 3]],
    ['both inserted at the start', [1], [2, 1], [3, 1], [2, 1]],
    ['only the other changed it', [1], [1], [2], [2]],
    ['only this request changed it', [1], [2], [1], [2]],
  ])('are merged as documented if %s', (_what, seen, now, stored, expected) => {
    expect(arrays(seen, now, stored)).toEqual(expected);
  });

  test.each([
    ['both pushed the first element', [1], [2], [2, 1]],
    ['both pushed the same first element', [1], [1], [1]],
    ['this request pushed one, the other assigned several', [1], [2, 3], [2, 3, 1]],
    ['this request assigned several, the other pushed one', [2, 3], [1], [2, 3, 1]],
    ['both assigned several', [1, 2], [3, 4], [1, 2]],
    ['both assigned an empty array', [], [], []],
    ['this request assigned an empty array', [], [1, 2], []],
  ])('that did not exist are merged as documented if %s', (_what, now, stored, expected) => {
    expect(arrays(none, now, stored)).toEqual(expected);
  });

  test('are deleted or replaced by another value if one side does so and the other appends', () => {
    expect(arrays([1], [1, 2], none)).toBeUndefined();
    expect(arrays([1], none, [1, 2])).toBeUndefined();
    expect(arrays([1], [1, 2], null)).toBeNull();
    expect(arrays([1], null, [1, 2])).toBeNull();
    expect(arrays([1], [1, 2], { of: 'objects' })).toEqual({ of: 'objects' });
  });

  test('that one side replaces and the other deletes become what this request made of them', () => {
    expect(arrays([1], [2], none)).toEqual([2]);
    expect(arrays([1], none, [2])).toBeUndefined();
  });

  test('are not merged with objects, nor element by element', () => {
    expect(arrays([], {}, [1])).toEqual({});
    expect(arrays({}, [1], [2])).toEqual([1]);
    expect(arrays([{ x: 1, y: 1 }], [{ x: 2, y: 1 }], [{ x: 1, y: 2 }])).toEqual([{ x: 2, y: 1 }]);
  });

  test('keep the elements of three requests that push at once, also if they did not exist before', () => {
    for (const seen of [none, [], [0]]) {
      const pushed = (element: number) => [...(seen ?? []), element];
      const all = [1, 2, 3].map(pushed).reduce((stored, now) => {
        const result = arrays(seen, now, stored);
        return Array.isArray(result) ? result : [];
      });
      expect(all).toEqual([...(seen ?? []), 1, 2, 3]);
    }
  });

  test('keep an element that a request pushes twice, in two saves', () => {
    // The first save was merged with another request's 'x'. The second is compared with what this request saw.
    expect(arrays(['tea'], ['tea', 'tea'], ['x', 'tea'])).toEqual(['x', 'tea', 'tea']);
  });

  /** Each element occurs once, like an object with an id. */
  const history = fc.record({
    seen: fc.option(fc.uniqueArray(fc.nat(9), { maxLength: 3 }), { nil: undefined }),
    here: fc.uniqueArray(fc.integer({ min: 10, max: 19 }), { maxLength: 3 }),
    there: fc.uniqueArray(fc.integer({ min: 20, max: 29 }), { maxLength: 3 }),
    other: fc.option(fc.uniqueArray(fc.integer({ min: 30, max: 39 }), { maxLength: 2 }), {
      nil: undefined,
    }),
    removed: fc.nat(9),
  });

  test('contain the elements that a request appended, once and in order, whatever the other side changed', () => {
    fc.assert(
      fc.property(history, ({ seen = [], here, there, other, removed }) => {
        const stored = other ?? [...seen.filter((one) => one !== removed), ...there];
        const once = arrays(seen, [...seen, ...here], stored);
        const isOtherChanged = JSON.stringify(stored) !== JSON.stringify(seen);
        expect(once).toEqual([...(isOtherChanged ? stored : seen), ...here]);
      }),
    );
  });

  test('do not change if appended elements are merged again with the result', () => {
    fc.assert(
      fc.property(history, ({ seen = [], here, there, other, removed }) => {
        const now = [...seen, ...here];
        const once = arrays(
          seen,
          now,
          other ?? [...seen.filter((one) => one !== removed), ...there],
        );
        expect(arrays(seen, now, once)).toEqual(once);
      }),
    );
  });

  test('have the same elements in whichever order two requests that append are merged', () => {
    fc.assert(
      fc.property(history, ({ seen = [], here, there }) => {
        const [mine, theirs] = [
          [...seen, ...here],
          [...seen, ...there],
        ];
        const [one, other] = [arrays(seen, mine, theirs), arrays(seen, theirs, mine)];
        expect([one].flat().sort()).toEqual([other].flat().sort());
      }),
    );
  });

  test('get only the elements appended since the first save from a second save', () => {
    fc.assert(
      fc.property(history, history, ({ seen = [], here, there, other, removed }, again) => {
        const first = [...seen, ...here];
        const stored = other ?? [...seen.filter((one) => one !== removed), ...there];
        const once = [arrays(seen, first, stored)].flat();
        const more = again.here.map((element) => element + 100);
        expect(arrays(first, [...first, ...more], once)).toEqual([...once, ...more]);
        // Also if another request appends between the two saves.
        const between = [...once, ...again.there.map((element) => element + 100)];
        expect(arrays(first, [...first, ...more], between)).toEqual([...between, ...more]);
      }),
    );
  });
});

test('two objects created under the same key are merged', () => {
  expect(merged({}, { cart: { tea: 1 } }, { cart: { nuts: 2 } })).toEqual({
    cart: { tea: 1, nuts: 2 },
  });
});

test('an object that the other side removed or replaced does not come back through a change inside it', () => {
  const seen = { user: { name: 'ada', lastSeen: 1 } };
  const now = { user: { name: 'ada', lastSeen: 2 } };
  expect(merged(seen, now, {})).toEqual({});
  expect(merged(seen, now, { user: null })).toEqual({ user: null });
  expect(merged(seen, now, { user: [1] })).toEqual({ user: [1] });
});

test('an object that this request removed or replaced does not come back through a change inside it', () => {
  const seen = { user: { name: 'ada', lastSeen: 1 } };
  const stored = { user: { name: 'ada', lastSeen: 2 } };
  expect(merged(seen, {}, stored)).toEqual({});
  expect(merged(seen, { user: 0 }, stored)).toEqual({ user: 0 });
});

test('a nested object that the other side removed does not come back through a change inside it', () => {
  const seen = { shop: { user: { name: 'ada' }, cart: 1 } };
  const now = { shop: { user: { name: 'ada', lastSeen: 2 }, cart: 1 } };
  expect(merged(seen, now, { shop: { cart: 2 } })).toEqual({ shop: { cart: 2 } });
});

test('a key that `Session` drops on loading counts as unchanged', () => {
  const dropping = { ...settings, isDropped: (name: string) => name === 'id' };
  expect(merge({ id: 1, a: 1 }, { a: 2 }, { id: 3, a: 1 }, dropping)).toEqual({ id: 3, a: 2 });
  expect(onlyExpiryMoved({ id: 1, a: 1 }, { a: 1 }, dropping)).toBe(true);
  // Only at the top level. Within a value, it is data.
  expect(merge({ a: { id: 1 } }, { a: {} }, { a: { id: 1 }, b: 1 }, dropping)).toEqual({
    a: {},
    b: 1,
  });
});

const early = '2026-01-01T00:00:00.000Z';
const middle = '2026-01-01T01:00:00.000Z';
const late = '2026-01-01T02:00:00.000Z';
const until = (expires: string | null, originalMaxAge: number | null = 3_600_000): Plain => ({
  cookie: { originalMaxAge, expires, path: '/' },
});

test('if both sides moved the expiry, the later one holds', () => {
  expect(merged(until(early), until(late), until(middle))).toEqual(until(late));
  expect(merged(until(early), until(middle), until(late))).toEqual(until(late));
});

test('if one side moved the expiry, its expiry holds, even if it is earlier', () => {
  expect(merged(until(late), until(late), until(early))).toEqual(until(early));
  expect(merged(until(late), until(early), until(late))).toEqual(until(early));
});

test('a touch does not restore an expiry that the other side removed', () => {
  const forgotten = until(null, null);
  expect(merged(until(early), until(late), forgotten)).toEqual(forgotten);
  expect(merged(until(early), forgotten, until(late))).toEqual(forgotten);
});

test('“remember me” keeps its new lifetime against a touch, on either side', () => {
  const remembered = until(late, 30 * 86_400_000);
  expect(merged(until(early), until(middle), remembered)).toEqual(remembered);
  expect(merged(until(early), remembered, until(middle))).toEqual(remembered);
  expect(merged(until(null, null), remembered, until(null, null))).toEqual(remembered);
});

test('a lifetime that drifted in a touch is no change and is not kept', () => {
  const drifted = until(late, 3_600_000 - LIFETIME_DRIFT_MS);
  expect(onlyExpiryMoved(until(early), drifted, settings)).toBe(true);
  expect(merged(until(early), drifted, until(middle))).toEqual(until(late));
  const chosen = until(late, 3_600_000 - LIFETIME_DRIFT_MS - 1);
  expect(onlyExpiryMoved(until(early), chosen, settings)).toBe(false);
  expect(merged(until(early), chosen, until(middle))).toEqual(chosen);
});

test('only a moved expiry counts as a touch; any other change of the cookie is a change of the session', () => {
  const moved = (now: Plain) => onlyExpiryMoved(until(early), now, settings);
  expect(moved(until(late))).toBe(true);
  expect(moved(until(late, 1))).toBe(false);
  expect(moved(until(null))).toBe(false);
  expect(moved({ cookie: { ...Object(until(late).cookie), path: '/app' } })).toBe(false);
  expect(moved({ ...until(late), a: 1 })).toBe(false);
  expect(moved({})).toBe(false);
  expect(onlyExpiryMoved(until(null), until(early), settings)).toBe(false);
});

/** The text as express-session serializes it: the cookie first. */
const textOf = ({ cookie: fields, ...content }: Plain) => {
  const rest = JSON.stringify(content).slice(1);
  return `{"cookie":${JSON.stringify(fields)}${rest === '}' ? '' : ','}${rest}`;
};
/** The text of an object in which the cookie is last, as in a copy by the app. */
const textWithCookieLast = ({ cookie: fields, ...content }: Plain) =>
  JSON.stringify({ ...content, cookie: fields });
const quickly = (seen: Plain, now: Plain, text = textOf) =>
  isSameButExpiry(text(seen), text(now), JSON.stringify(now.cookie));

test.each([
  ['first', textOf],
  ['last', textWithCookieLast],
])('comparing texts with the cookie %s has the same result as comparing sessions', (_, text) => {
  fc.assert(
    fc.property(threeSides, cookie, ([seen, now], other) => {
      const pairs: [Plain, Plain][] = [
        [seen, now],
        [seen, { ...now, cookie: other }],
        [seen, { ...seen, cookie: other }],
        [{ cookie: seen.cookie }, { cookie: other }],
      ];
      for (const [before, after] of pairs) {
        const found = quickly(before, after, text);
        if (found === undefined) continue;
        const [one, two] = [before, after].map((side) => JSON.parse(text(side)));
        expect(found).toBe(onlyExpiryMoved(one, two, settings));
      }
    }),
  );
});

test('texts are compared without parsing the session if the cookie is first', () => {
  const content = { user: 'ada', cart: [1, 2] };
  expect(quickly({ ...until(early), ...content }, { ...until(late), ...content })).toBe(true);
  expect(quickly(until(early), until(late))).toBe(true);
  expect(quickly({ ...until(early), ...content }, { ...until(late), ...content, a: 1 })).toBe(
    false,
  );
  // A missing key may be one that `Session` has dropped.
  expect(quickly({ ...until(early), ...content }, { ...until(late), user: 'ada' })).toBeUndefined();
  expect(quickly({ ...until(early), ...content }, until(late))).toBeUndefined();
  expect(quickly({ ...until(early), ...content }, { ...until(late, 1), ...content })).toBe(
    undefined,
  );
  const middle = ({ cookie: fields, ...others }: Plain) =>
    JSON.stringify({ a: 1, cookie: fields, ...others });
  expect(quickly(until(early), { ...until(early), b: 1 }, middle)).toBeUndefined();
  expect(isSameButExpiry('{"a":1}', '{"a":1}', undefined)).toBeUndefined();
});

test('texts are compared without parsing the session if the cookie is last', () => {
  const compare = (seen: Plain, now: Plain) => quickly(seen, now, textWithCookieLast);
  const content = { user: 'ada', nested: { cookie: until(early).cookie } };
  const seen: Plain = { ...content, ...until(early) };
  expect(compare(seen, { ...content, ...until(late) })).toBe(true);
  expect(compare(until(early), until(late))).toBe(true);
  expect(compare(seen, { ...content, a: 1, ...until(late) })).toBe(false);
  expect(compare(seen, { ...content, user: 'bob', ...until(late) })).toBe(false);
  expect(compare(seen, { user: 'ada', ...until(late) })).toBeUndefined();
  expect(compare(seen, { ...content, ...until(late, 1) })).toBeUndefined();
  // The cookie is first in the stored text, so perhaps only the order of the keys differs.
  expect(
    isSameButExpiry(textOf(seen), textWithCookieLast(seen), JSON.stringify(seen.cookie)),
  ).toBeUndefined();
});

/** A recursive merge, slow but short, which does what `merge` does except for the cookie. */
function mergedByRecursion(seen: unknown, now: unknown, stored: unknown, isRoot = true): unknown {
  const isMineChanged = isRoot || !isSame(seen, now);
  if (!isMineChanged) return stored;
  if (!isRoot && isSame(seen, stored)) return now;
  if (isPlainObject(now) && isPlainObject(stored) && (isPlainObject(seen) || seen === undefined)) {
    const keys = [...new Set([...Object.keys(stored), ...Object.keys(now)])];
    const entries = keys.map((name) => {
      const [before, mine, theirs] = [seen, now, stored].map((side) => at(side, [name]));
      return [name, mergedByRecursion(before, mine, theirs, false)] as const;
    });
    return fromEntries(entries.filter(([, value]) => value !== undefined));
  }
  if (isPlainObject(seen) && isPlainObject(now)) return stored;
  return mergedArrays(seen, now, stored);
}

function mergedArrays(seen: unknown, now: unknown, stored: unknown): unknown {
  const appended = (array: unknown[]) => {
    const start = Array.isArray(seen) ? seen : [];
    if (seen !== start && (seen !== undefined || array.length !== 1)) return undefined;
    const rest = array.slice(start.length);
    return rest.length > 0 && isSame(start, array.slice(0, start.length)) ? rest : undefined;
  };
  const onto = (array: unknown[], rest: unknown[]) => {
    const endsSo = (one: unknown) => Array.isArray(one) && isSame(one.slice(-rest.length), rest);
    return endsSo(array) && !endsSo(seen) ? array : [...array, ...rest];
  };
  if (!Array.isArray(now)) return now;
  const mine = appended(now);
  if (!Array.isArray(stored)) return Array.isArray(seen) && mine !== undefined ? stored : now;
  if (isSame(now, stored)) return stored;
  if (mine !== undefined) return onto(stored, mine);
  const theirs = appended(stored);
  return theirs === undefined ? now : onto(now, theirs);
}

/** `undefined` stands for a missing key. */
function isSame(one: unknown, other: unknown): boolean {
  if (isPlainObject(one) && isPlainObject(other)) {
    const keys = Object.keys(one);
    return (
      keys.length === Object.keys(other).length &&
      keys.every((name) => isSame(at(one, [name]), at(other, [name])))
    );
  }
  return JSON.stringify(one) === JSON.stringify(other);
}

test('merging has the result of a recursive merge, including the order of the keys', () => {
  const withoutCookie = ({ cookie: _, ...content }: Plain) => content;
  fc.assert(
    fc.property(threeSides, (sides) => {
      const [seen, now, stored] = sides.map(withoutCookie);
      const result = merged(seen ?? {}, now ?? {}, stored ?? {});
      expect(JSON.stringify(result)).toBe(JSON.stringify(mergedByRecursion(seen, now, stored)));
    }),
    { numRuns: RUNS },
  );
});

test('merging a deeply nested session compares values no more often than merging a flat one', () => {
  const deep = (levels: number, value: unknown): Plain =>
    JSON.parse(`${'{"a":'.repeat(levels)}${JSON.stringify(value)}${'}'.repeat(levels)}`);
  const visits = (levels: number) => {
    let count = 0;
    const same = (one: unknown, other: unknown) => {
      count += 1;
      return settings.same(one, other);
    };
    const [seen, now, stored] = [0, 1, 2].map((value) => deep(levels, { x: value, y: [value] }));
    const result = merge(seen ?? {}, now ?? {}, stored ?? {}, { ...settings, same });
    expect(at(result, [...'a'.repeat(levels), 'x'])).toBe(1);
    expect(onlyExpiryMoved(seen ?? {}, now ?? {}, { ...settings, same })).toBe(false);
    return count;
  };
  // Far beyond the limit of `JSON.stringify`, which is about 5,000 levels.
  expect(visits(100_000)).toBe(visits(1));
});

test('a session with a thousand levels of objects is merged', () => {
  const nested = (depth: number, value: number): Plain =>
    JSON.parse(`${'{"a":'.repeat(depth)}{"x":${value}}${'}'.repeat(depth)}`);
  const depth = 1000;
  const [seen, now] = [nested(depth, 1), nested(depth, 2)];
  expect(JSON.stringify(merged(seen, now, { ...seen, b: 1 }))).toBe(
    JSON.stringify({ ...now, b: 1 }),
  );
});

function fromEntries(entries: readonly (readonly [string, unknown])[]): Plain {
  return JSON.parse(
    `{${[...new Map(entries)].map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`).join(',')}}`,
  );
}

function parse(fields: Plain, name?: string): Plain {
  return fromEntries(name === undefined ? [] : [[name, Object.values(fields)[0] ?? fields[name]]]);
}

/** Returns a copy in which a key of one object is set or deleted. `at` selects the object. */
function edited(
  side: Plain,
  { at: index, key: name, value }: { at: number; key: string; value: unknown },
): Plain {
  const copy: Plain = structuredCloneJson(side);
  const places = [...plainObjectsIn(copy)].filter((place) => place !== copy.cookie);
  const place = places[index % places.length] ?? copy;
  if (name === 'cookie') return copy;
  if (value === undefined) Reflect.deleteProperty(place, name);
  else define(place, name, value);
  return copy;
}

function define(object: Plain, name: string, value: unknown): void {
  Object.defineProperty(object, name, {
    value,
    configurable: true,
    enumerable: true,
    writable: true,
  });
}

function structuredCloneJson(value: Plain): Plain {
  return JSON.parse(JSON.stringify(value));
}

function* plainObjectsIn(value: unknown): Generator<Plain> {
  if (!isPlainObject(value)) return;
  yield value;
  for (const name of Object.keys(value)) yield* plainObjectsIn(value[name]);
}

type Path = readonly string[];

function at(value: unknown, path: Path): unknown {
  let found = value;
  for (const name of path) {
    if (!isPlainObject(found) || !Object.hasOwn(found, name)) return undefined;
    found = found[name];
  }
  return found;
}

/** The paths at which two versions differ; each is as deep as both have objects. */
function changedPaths(before: unknown, after: unknown, path: Path = []): Path[] {
  if (!isPlainObject(before) || !isPlainObject(after)) {
    return JSON.stringify(before) === JSON.stringify(after) ? [] : [path];
  }
  return [...new Set([...Object.keys(before), ...Object.keys(after)])].flatMap((name) =>
    changedPaths(at(before, [name]), at(after, [name]), [...path, name]),
  );
}

function leafPaths(value: unknown, path: Path = []): Path[] {
  if (!isPlainObject(value)) return [path];
  return Object.keys(value).flatMap((name) => leafPaths(value[name], [...path, name]));
}

function overlap(one: Path, other: Path): boolean {
  return one.every((name, index) => index >= other.length || other[index] === name);
}
