/**
 * The files that the pages load. They are strings, so that bundlers include them.
 *
 * @module
 */
import { ICON } from './icon.js';
import { SCRIPT } from './script.js';
import { STYLE } from './style.js';

export interface Asset {
  readonly type: string;
  readonly text: string;
}

export const ASSETS: ReadonlyMap<string, Asset> = new Map([
  ['style.css', { type: 'text/css; charset=utf-8', text: STYLE }],
  ['script.js', { type: 'text/javascript; charset=utf-8', text: SCRIPT }],
  ['icon.svg', { type: 'image/svg+xml', text: ICON }],
]);
