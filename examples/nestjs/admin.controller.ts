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

/** Lets in `admin`; anybody else gets 403. Your app asks for a role here. */
@Injectable()
export class IsAdmin implements CanActivate {
  canActivate(context: ExecutionContext): boolean {
    return isAdmin(context.switchToHttp().getRequest<Request>());
  }
}

/** The admin page is an Express router. A controller passes its requests on, so that guards apply. */
@Controller('admin/sessions')
@UseGuards(IsAdmin)
export class AdminController {
  readonly #page: Router;

  constructor(@Inject(DrizzleStore) store: DrizzleStore) {
    this.#page = Router().use(
      '/admin/sessions',
      sessionAdmin({
        store,
        // Required. It asks what the guard asks, so the page is safe without the guard, too.
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
