import { ApplianceError } from '../core/errors.ts';

/** Settings that cannot be used. One line per problem, each naming where it comes from, the key, the value given and what is allowed. */
export class SettingsError extends ApplianceError {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super('settings-invalid', problems.join('\n'));
    this.name = 'SettingsError';
    this.problems = problems;
  }
}
