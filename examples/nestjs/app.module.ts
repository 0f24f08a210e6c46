import { Inject, Module, type OnApplicationShutdown } from '@nestjs/common';
import { DrizzleStore } from 'connect-drizzle';
import { AdminController } from './admin.controller.js';
import { SessionController } from './session.controller.js';

const storeProvider = {
  provide: DrizzleStore,
  async useFactory(): Promise<DrizzleStore> {
    const store = new DrizzleStore(process.argv[2] ?? 'memory://', {
      createTableIfMissing: true,
      userId: (session) => session.member,
    });
    await store.ready();
    return store;
  },
};

@Module({ controllers: [SessionController, AdminController], providers: [storeProvider] })
export class AppModule implements OnApplicationShutdown {
  constructor(@Inject(DrizzleStore) private readonly store: DrizzleStore) {}

  /** Nest calls this when the last request has been answered. */
  onApplicationShutdown(): Promise<void> {
    return this.store.close();
  }
}
