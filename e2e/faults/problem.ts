/** What /readyz says, decoded. */
import type { HttpAnswer } from '../router-process.ts';

export interface ReadyzProblems {
  readonly ready: boolean;
  readonly codes: readonly string[];
  readonly text: string;
}

export function problemsOf(answer: HttpAnswer): ReadyzProblems {
  const { ready, problems } = JSON.parse(answer.body) as { ready: boolean; problems: { code: string; message: string }[] };
  return { ready, codes: problems.map((problem) => problem.code), text: answer.body };
}

/** For `waitForReadyz`: serving, and nothing to complain of. */
export function allWell(answer: HttpAnswer): boolean {
  return answer.status === 200 && problemsOf(answer).codes.length === 0;
}

/** For `waitForReadyz`: it says that something is wrong. */
export function complains(answer: HttpAnswer): boolean {
  return answer.status !== 0 && problemsOf(answer).codes.length > 0;
}
