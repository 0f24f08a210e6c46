import {
  All,
  type CanActivate,
  Controller,
  type ExecutionContext,
  Inject,
  Injectable,
  Next,
  Req,
  Res,
  UseGuards,
} from '@nestjs/common';
import { DrizzleStore } from 'connect-drizzle';
import { sessionAdmin } from 'connect-drizzle/admin';
import { type NextFunction, type Request, type Response, Router } from 'express';

/** Gives access to `admin`; all others get 403. Your app checks a role here. */
@Injectable()
export class IsAdmin implements CanActivate {
  canActivate(context: ExecutionContext): boolean {
    return isAdmin(context.switchToHttp().getRequest<Request>());
  }
}

/** The admin page is an Express router. A controller forwards its requests to it, so that guards run. */
@Controller('admin/sessions')
@UseGuards(IsAdmin)
export class AdminController {
  readonly #page: Router;

  constructor(@Inject(DrizzleStore) store: DrizzleStore) {
    this.#page = Router().use(
      '/admin/sessions',
      sessionAdmin({
        store,
        // Required. It makes the same check as the guard, so the page is also safe without the guard.
        authorize: isAdmin,
        describe: ({ member, asked }) => ({ Member: member, Asked: asked }),
      }),
    );
  }

  @All(['', '{*path}'])
  page(@Req() request: Request, @Res() response: Response, @Next() next: NextFunction): void {
    this.#page(request, response, next);
  }
}

function isAdmin({ session }: Request): boolean {
  return session.member === 'admin';
}
