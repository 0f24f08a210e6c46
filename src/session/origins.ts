/**
 * What is remembered of an object for as long as it lives: a WeakMap in all but its cost. A private
 * field can be put on any object through a constructor that returns it; the garbage collector then
 * finds the value with the object, where a WeakMap has to be searched for the living after each of its
 * runs (measured: a get with a WeakMap costs half a microsecond more).
 *
 * @module
 */

/** Values for objects; two sidecars know nothing of each other. */
export interface Sidecar<T> {
  get(object: object): T | undefined;
  set(object: object, value: T): void;
}

class Returned {
  constructor(object: object) {
    // biome-ignore lint/correctness/noConstructorReturn: a derived class adds its field to it
    return object;
  }
}

export function sidecar<T>(): Sidecar<T> {
  class Carrier extends Returned {
    #value: T;

    private constructor(object: object, value: T) {
      super(object);
      this.#value = value;
    }

    static get(object: object): T | undefined {
      return #value in object ? object.#value : undefined;
    }

    static set(object: object, value: T): void {
      if (#value in object) object.#value = value;
      else new Carrier(object, value);
    }
  }
  return Carrier;
}
