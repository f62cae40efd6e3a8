import assert from 'node:assert/strict';
import { test } from 'node:test';

import { missing, notProtocol, Trouble, type Problem } from '../src/problem';
import { Supervisor, type End, type Run } from '../src/supervisor';

/** A run whose every step the test makes. */
class FakeRun implements Run {
  readonly ready: Promise<void>;
  readonly ended: Promise<End>;
  stopped = 0;
  answer!: () => void;
  refuse!: (error: Error) => void;
  end!: (end: End) => void;

  constructor() {
    this.ready = new Promise((resolve, reject) => {
      this.answer = resolve;
      this.refuse = reject;
    });
    this.ended = new Promise((resolve) => {
      this.end = resolve;
    });
  }

  stop(): Promise<void> {
    this.stopped += 1;
    this.end({ how: 'exit code 0' });
    return Promise.resolve();
  }
}

class World {
  now = 0;
  timers: { at: number; call: () => void }[] = [];
  runs: FakeRun[] = [];
  told: Problem[] = [];
  phases: string[] = [];
  /** What the next launch fails with. */
  trouble: Error | undefined;
  readonly supervisor = new Supervisor(
    () => {
      if (this.trouble !== undefined) {
        return Promise.reject(this.trouble);
      }
      const run = new FakeRun();
      this.runs.push(run);
      return Promise.resolve(run);
    },
    {
      now: () => this.now,
      after: (ms, call) => {
        const timer = { at: this.now + ms, call };
        this.timers.push(timer);
        return () => {
          this.timers = this.timers.filter((other) => other !== timer);
        };
      },
    },
    (problem) => this.told.push(problem),
    (phase) => this.phases.push(phase),
  );

  get run(): FakeRun {
    const run = this.runs.at(-1);
    assert.ok(run, 'nothing was started');
    return run;
  }

  get keys(): string[] {
    return this.told.map(({ key }) => key);
  }

  /** Lets time pass, and what it sets off happen. */
  async pass(ms: number): Promise<void> {
    this.now += ms;
    const due = this.timers.filter(({ at }) => at <= this.now);
    this.timers = this.timers.filter(({ at }) => at > this.now);
    for (const { call } of due) {
      call();
    }
    await settle();
  }

  async start(): Promise<void> {
    void this.supervisor.start();
    await settle();
  }

  async started(): Promise<void> {
    await this.start();
    this.run.answer();
    await settle();
    assert.equal(this.supervisor.phase, 'running');
  }

  async crash(): Promise<void> {
    this.run.end({ how: 'exit code 3' });
    await settle();
  }
}

/** Everything that is ready to happen has happened when a macrotask runs. */
function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

test('starts, runs, stops', async () => {
  const world = new World();
  await world.started();
  await world.start();
  assert.equal(world.runs.length, 1, 'started once');
  await world.supervisor.stop();
  assert.equal(world.run.stopped, 1);
  assert.deepEqual(world.phases, ['starting', 'running', 'stopped']);
  await world.pass(100_000);
  assert.equal(world.runs.length, 1, 'a stopped server stays stopped');
  assert.deepEqual(world.told, []);
});

test('pauses before another start double, and end with one message', async () => {
  const world = new World();
  await world.start();
  for (const pause of [1000, 2000, 4000, 8000]) {
    const before = world.runs.length;
    await world.crash();
    assert.equal(world.supervisor.phase, 'waiting');
    await world.pass(pause - 1);
    assert.equal(world.runs.length, before, `not before ${pause} ms`);
    await world.pass(1);
    assert.equal(world.runs.length, before + 1, `after ${pause} ms`);
  }
  await world.crash();
  assert.equal(world.supervisor.phase, 'gave-up');
  assert.deepEqual(world.keys, ['crashed']);
  assert.match(world.told[0]?.message ?? '', /ended 5 times \(exit code 3\)/);
  await world.pass(1_000_000);
  assert.equal(world.runs.length, 5);
});

test('a server that ran for long has all its restarts again', async () => {
  const world = new World();
  await world.started();
  for (let time = 0; time < 20; time += 1) {
    await world.pass(60_001);
    await world.crash();
    await world.pass(1000);
    world.run.answer();
    await settle();
  }
  assert.equal(world.supervisor.phase, 'running');
  assert.deepEqual(world.told, []);
});

test('a restart begins anew after giving up', async () => {
  const world = new World();
  world.trouble = new Trouble(missing('path', ''));
  await world.start();
  assert.equal(world.supervisor.phase, 'gave-up');
  assert.deepEqual(world.keys, ['missing']);
  await world.start();
  assert.deepEqual(world.keys, ['missing'], 'a start alone tries nothing again');
  world.trouble = undefined;
  void world.supervisor.restart();
  await settle();
  world.run.answer();
  await settle();
  assert.equal(world.supervisor.phase, 'running');
});

test('an error that nobody foresaw is told, too', async () => {
  const world = new World();
  world.trouble = new Error('no more processes');
  await world.start();
  assert.deepEqual(world.keys, ['crashed']);
  assert.match(world.told[0]?.message ?? '', /no more processes/);
});

test('a server that does not answer is told of, and waited for', async () => {
  const world = new World();
  await world.start();
  await world.pass(14_999);
  assert.deepEqual(world.keys, []);
  await world.pass(1);
  assert.deepEqual(world.keys, ['silent']);
  world.run.answer();
  await settle();
  assert.equal(world.supervisor.phase, 'running');
  const answered = new World();
  await answered.started();
  await answered.pass(60_000);
  assert.deepEqual(answered.keys, []);
});

test('what is not the protocol is not started again', async () => {
  const world = new World();
  await world.start();
  world.run.end({ how: 'not the protocol', problem: notProtocol('x') });
  world.run.refuse(new Error('connection closed'));
  await settle();
  assert.equal(world.supervisor.phase, 'gave-up');
  await world.pass(1_000_000);
  assert.equal(world.runs.length, 1);
  assert.deepEqual(world.keys, ['not-protocol']);
});

test('a server that refuses is ended, and tried again', async () => {
  const world = new World();
  await world.start();
  world.run.refuse(new Error('no'));
  await settle();
  assert.equal(world.run.stopped, 1);
  assert.equal(world.supervisor.phase, 'waiting');
  await world.pass(1000);
  assert.equal(world.runs.length, 2);
});

test('a stop while it is being started ends what comes of it', async () => {
  const world = new World();
  void world.supervisor.start();
  await world.supervisor.stop();
  await settle();
  assert.equal(world.run.stopped, 1);
  assert.equal(world.supervisor.phase, 'stopped');
  // The test runner fails on a rejection that nobody looks after.
  world.run.refuse(new Error('stopped'));
  await world.pass(60_000);
  assert.deepEqual(world.told, []);
});

test('a stop while it waits takes the start back', async () => {
  const world = new World();
  await world.start();
  await world.crash();
  await world.supervisor.stop();
  await world.pass(60_000);
  assert.equal(world.runs.length, 1);
});
