import {
  type CanActivate,
  createParamDecorator,
  type ExecutionContext,
  Injectable,
} from '@nestjs/common';
import type { Request } from 'express';

/** Gives access to users who are logged in; everybody else gets 403. */
@Injectable()
export class LoggedIn implements CanActivate {
  canActivate(context: ExecutionContext): boolean {
    return memberOf(context) !== undefined;
  }
}

/** The name of the user who is logged in. */
export const Member = createParamDecorator((_data: unknown, context: ExecutionContext) =>
  memberOf(context),
);

function memberOf(context: ExecutionContext): string | undefined {
  return context.switchToHttp().getRequest<Request>().session.member;
}
