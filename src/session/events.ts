/**
 * express-session's `Store` with typed events.
 *
 * @module
 */
import session from 'express-session';

/** What happened to a session. */
export interface SessionEvent {
  /** `base64url(SHA-256(sid))` */
  readonly id: string;
  /** Whether this store did it, and not another one. */
  readonly local: boolean;
}

/** The arguments that the listeners of each event get. */
export interface StoreEvents {
  /** The content of a session changed. Touches are not announced. */
  readonly change: [event: SessionEvent];
  /** A session was destroyed or revoked. */
  readonly destroy: [event: SessionEvent];
  /** With `sync`: whether changes of other processes are heard. */
  readonly sync: [state: 'up' | 'down'];
  /** express-session uses the store again. */
  readonly connect: [];
  /** express-session skips sessions until the next `connect`. */
  readonly disconnect: [];
}

/** A name in {@link StoreEvents}, or an event of the app's own. */
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
