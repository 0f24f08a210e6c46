/** A promise that the test resolves, to force an order of events. */
export interface Gate<Value = void> {
  readonly opened: Promise<Value>;
  open(value: Value): void;
  fail(error: unknown): void;
}

export function gate<Value = void>(): Gate<Value> {
  let open: (value: Value) => void = () => {};
  let fail: (error: unknown) => void = () => {};
  const opened = new Promise<Value>((resolve, reject) => {
    open = resolve;
    fail = reject;
  });
  return { opened, open, fail };
}

/** Holds all callers until `count` have arrived. */
export function barrier(count: number): () => Promise<void> {
  const everybody = gate();
  let arrived = 0;
  return () => {
    arrived += 1;
    if (arrived >= count) everybody.open();
    return everybody.opened;
  };
}
