/**
 * express-session's `Store` with typed events.
 *
 * @module
 */
import session from 'express-session';

/** The argument of `change` and `destroy`. */
export interface SessionEvent {
  /** `base64url(SHA-256(sid))` */
  readonly id: string;
  /** Whether this store made the change, not another one. */
  readonly local: boolean;
}

/** The arguments that the listeners of each event get. */
export interface StoreEvents {
  /** The content of a session changed. There is no event for a touch. */
  readonly change: [event: SessionEvent];
  /** A session was destroyed or revoked. */
  readonly destroy: [event: SessionEvent];
  /** With `sync`: whether the store receives changes of other processes. */
  readonly sync: [state: 'up' | 'down'];
  /** express-session uses the store again. */
  readonly connect: [];
  /** express-session skips sessions until the next `connect`. */
  readonly disconnect: [];
}

/** A name in {@link StoreEvents}, or of an event of the app. */
type EventName = keyof StoreEvents | (string & {}) | symbol;

/** Listeners of the app's own events may declare any arguments. */
type EventListener<Name> = (
  ...args: Name extends keyof StoreEvents ? StoreEvents[Name] : never[]
) => void;

type EventArguments<Name> = Name extends keyof StoreEvents ? StoreEvents[Name] : unknown[];

export interface TypedStore {
  on<Name extends EventName>(event: Name, listener: EventListener<Name>): this;
  once<Name extends EventName>(event: Name, listener: EventListener<Name>): this;
  off<Name extends EventName>(event: Name, listener: EventListener<Name>): this;
  addListener<Name extends EventName>(event: Name, listener: EventListener<Name>): this;
  removeListener<Name extends EventName>(event: Name, listener: EventListener<Name>): this;
  prependListener<Name extends EventName>(event: Name, listener: EventListener<Name>): this;
  prependOnceListener<Name extends EventName>(event: Name, listener: EventListener<Name>): this;
  emit<Name extends EventName>(event: Name, ...args: EventArguments<Name>): boolean;
}

// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: it only narrows the types of inherited methods
export abstract class TypedStore extends session.Store {}
