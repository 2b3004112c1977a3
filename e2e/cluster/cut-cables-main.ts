/**
 * `node e2e/cluster/cut-cables-main.ts PLAN DIRECTORY SEED CUTS KEEP`: cut-cables.ts, to be run where the switch of the private network PLAN (JSON) is. Exits 0 when all was well; else
 * what can be known is kept in KEEP.
 */
import { SeededRandom } from '../random.ts';
import { cutCables, parseCuts } from './cut-cables.ts';
import { keepEvidence } from './evidence.ts';
import { PrivateNetwork, type PrivateNetworkPlan } from './private-network.ts';

const say = (line: string): void => void process.stdout.write(`${line}\n`);

const [plan = '', directory = '', seed = '', cuts = '', keep] = process.argv.slice(2);
if (keep === undefined) throw new Error('usage: cut-cables-main.ts PLAN DIRECTORY SEED CUTS KEEP');
try {
  const line = await cutCables({
    network: PrivateNetwork.of(JSON.parse(plan) as PrivateNetworkPlan),
    directory,
    random: new SeededRandom(Number(seed)),
    cuts: parseCuts(cuts),
    say,
    keep: async (cluster, error) => {
      await keepEvidence(keep, cluster, error, [`cuts ${cuts}, seed ${seed}`]);
      say(`kept in ${keep}`);
    },
  });
  say(line);
} catch (error) {
  say(`WRONG (seed ${seed}, cuts ${cuts}): ${String(error)}`);
  process.exitCode = 1;
}
