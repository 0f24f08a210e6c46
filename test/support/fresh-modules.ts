/**
 * Loads the modules of this package and of the tests anew for each test file, because the files share processes. So no
 * file sees the state or the mocks of another. Modules from node_modules remain loaded.
 *
 * @module
 */
import { vi } from 'vitest';

vi.resetModules();
