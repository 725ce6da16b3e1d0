"""Fuzz every target for its share of a time budget, and print a table.

    make fuzz                                         ten minutes
    make fuzz ARGS='--minutes 60 --jobs 2'
    make fuzz ARGS='--target codec --target deflate'
    make fuzz ARGS='--replay fuzz/regressions/codec/NAME'
    make fuzz ARGS=--self-test

Inputs that reached something new are kept in .build/fuzz/corpus/ and are where
the next run starts, beside the committed seeds. An input that crashes, hangs
for longer than TIMEOUT or takes more memory than MEMORY is saved in
.build/fuzz/findings/, and the exit status is then 1. A target is left after
its first finding: fix it, and move the input to fuzz/regressions/.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fuzz import watch
from fuzz.planted import FAULTS
from fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parent
BUILD = ROOT.parent / '.build' / 'fuzz'

TIMEOUT = 10  #: seconds for one input
PATIENCE = 40  #: seconds for it once more, before it is called a hang
MEMORY = 1024  #: MiB for the process of one target
GRACE = 900  #: seconds over its share, for a machine that has no core to spare
LONGEST = {'codec': 1024, 'protocol': 512, 'deflate': 1024}  #: bytes of an input
MODEL = 'model'  #: Hypothesis' state machine, which needs no libFuzzer


@dataclass
class Result:
    target: str
    executions: int = 0
    seconds: float = 0  #: of the clock
    cpu: float = 0  #: seconds that it had a core for
    coverage: tuple[int, int] = (0, 0)  #: edges, from the seeds and at the end
    corpus: tuple[int, int] = (0, 0)  #: inputs that are worth keeping, likewise
    findings: list[str] = field(default_factory=list)


def options_of(target: str, timeout: int = TIMEOUT) -> list[str]:
    return [
        f'-timeout={timeout}',
        f'-rss_limit_mb={MEMORY}',
        f'-max_len={LONGEST.get(target, 2048)}',
        '-print_final_stats=1',
    ]


def fuzz(target: str, seconds: float, seeds: Path, build: Path) -> Result:
    """Run one target in a process of its own."""
    corpus, found = build / 'corpus' / target, build / 'findings' / target
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, '-m', 'fuzz.worker', target, str(corpus), str(seeds)]
    regressions = ROOT / 'regressions' / target
    command += [str(regressions)] if regressions.is_dir() else []
    command += [*options_of(target), f'-artifact_prefix={found}/']
    command += [f'-max_total_time={max(1, round(seconds))}', f'-dict={ROOT / "websocket.dict"}']
    log = build / f'{target}.log'
    before = set(found.iterdir())
    began = time.monotonic()
    with log.open('wb') as output:
        worker = subprocess.Popen(
            command, cwd=ROOT.parent, stdout=output, stderr=subprocess.STDOUT
        )
        status, cpu = wait(worker, seconds + GRACE)
    result = read_log(target, log.read_text(errors='replace'))
    result.seconds = round(time.monotonic() - began, 1)
    result.cpu = round(cpu, 1)
    result.findings = sorted(str(path) for path in set(found.iterdir()) - before)
    if status and not result.findings:
        result.findings = [f'exit status {status}, see {log}']
    for finding in list(result.findings):
        if Path(finding).name.startswith('timeout-') and not hangs(target, finding):
            print(f'-- {target}: slow on this machine just now, no hang: {finding}', flush=True)
            result.findings.remove(finding)
    return result


def hangs(target: str, path: str) -> bool:
    """Whether an input that took too long does so again, given more time: the
    clock runs on while a busy machine has no core for us."""
    command = [sys.executable, '-m', 'fuzz.worker', target, *options_of(target, PATIENCE), path]
    worker = subprocess.Popen(
        command, cwd=ROOT.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    status, _ = wait(worker, GRACE)
    return status != 0


def wait(worker: subprocess.Popen[bytes], seconds: float) -> tuple[int, float]:
    """Wait for a process, not for ever: its exit status, its seconds of CPU."""
    end = time.monotonic() + seconds
    while True:
        pid, status, usage = os.wait4(worker.pid, os.WNOHANG)
        if pid:
            worker.returncode = os.waitstatus_to_exitcode(status)
            return worker.returncode, usage.ru_utime + usage.ru_stime
        if time.monotonic() > end:
            worker.kill()
        time.sleep(0.2)


def read_log(target: str, text: str) -> Result:
    """What libFuzzer said of its run."""
    result = Result(target)
    seen = re.findall(r'^#(\d+)\s+(\w+)\s+cov: (\d+) ft: \d+ corp: (\d+)/', text, re.M)
    if seen:
        first = next((one for one in seen if one[1] == 'INITED'), seen[0])
        result.coverage = int(first[2]), int(seen[-1][2])
        result.corpus = int(first[3]), int(seen[-1][3])
        result.executions = int(seen[-1][0])
    units = re.search(r'stat::number_of_executed_units: (\d+)', text)
    if units:
        result.executions = int(units[1])
    return result


def model(seconds: float, build: Path) -> Result:
    """Hypothesis' state machine of the protocol, with other seeds every time."""
    result = Result(MODEL)
    found = build / 'findings' / MODEL
    found.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    while time.monotonic() < began + seconds and not result.findings:
        seed = int.from_bytes(os.urandom(4), 'big')
        for codec in ('compiled', 'wsproto'):
            failed, count, cpu = model_once(seed, codec)
            result.executions += count
            result.cpu += cpu
            if failed:
                path = found / f'model-{seed}-{codec}.json'
                path.write_text(json.dumps({'seed': seed, 'codec': codec}) + '\n')
                (build / 'model.log').write_text(failed)
                result.findings.append(str(path))
    result.seconds = round(time.monotonic() - began, 1)
    return result


def model_once(seed: int, codec: str) -> tuple[str, int, float]:
    """What pytest says if the model's tests fail, how many runs there were, and
    their seconds of CPU."""
    command = [sys.executable, '-m', 'pytest', '-q', '--timeout=600']
    command += [f'--hypothesis-seed={seed}', '--hypothesis-show-statistics', '-s']
    command.append('tests/core/test_protocol_model.py')
    environ = {
        **os.environ,
        'SIMPLE_WEBSOCKET_CODEC': codec,
        'SWS_MODE': 'core-compiled' if codec == 'compiled' else 'core',
        'SWS_MODEL_EXAMPLES': '100',
    }
    with tempfile.TemporaryFile() as output:
        pytest = subprocess.Popen(
            command, cwd=ROOT.parent, env=environ, stdout=output, stderr=subprocess.STDOUT
        )
        status, cpu = wait(pytest, GRACE)
        output.seek(0)
        said = output.read().decode(errors='replace')
    count = sum(map(int, re.findall(r'(\d+) passing, ', said)))
    return (said if status else ''), count, cpu


def replay(path: Path) -> int:
    """Run one input; its target is the name of its folder."""
    target = path.resolve().parent.name
    if target == MODEL:
        case = json.loads(path.read_text())
        failed, _, _ = model_once(case['seed'], case['codec'])
        print(failed or f'{path}: nothing found')
        return int(bool(failed))
    command = [sys.executable, '-m', 'fuzz.worker', target, *options_of(target), str(path)]
    done = subprocess.run(command, cwd=ROOT.parent, capture_output=True)
    lines = (done.stdout + done.stderr).decode(errors='replace').splitlines()
    print('\n'.join(line for line in lines if not line.startswith('INFO: Instrumenting')))
    print(f'{path}: {"a finding" if done.returncode else "nothing found"}')
    return int(done.returncode != 0)


def self_test() -> int:
    """Whether planted faults are found: a crash, a hang, memory without end."""
    missed = []
    for fault in FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            build = Path(folder)
            seeds = build / 'seeds'
            seeds.mkdir()
            (seeds / 'harmless').write_bytes(b'x')
            (seeds / 'planted').write_bytes(fault)
            result = fuzz('planted', 5, seeds, build)
        kinds = {b'crash': 'crash-', b'hang': 'timeout-', b'memory': 'oom-'}
        names = [Path(finding).name for finding in result.findings]
        found = any(name.startswith(kinds[fault]) for name in names)
        print(f'planted {fault.decode():8} {"found" if found else "MISSED"} in {result.seconds} s')
        if not found:
            missed.append(fault)
    return int(bool(missed))


def table(results: list[Result]) -> None:
    head = f'{"target":18}{"executions":>12}{"seconds":>9}{"CPU":>7}{"edges":>14}{"corpus":>14}'
    print(f'{head}  findings')
    for one in results:
        edges = '{} -> {}'.format(*one.coverage) if one.coverage[1] else '-'
        corpus = '{} -> {}'.format(*one.corpus) if one.corpus[1] else '-'
        numbers = f'{one.executions:>12,}{one.seconds:>9.0f}{one.cpu:>7.0f}{edges:>14}{corpus:>14}'
        print(f'{one.target:18}{numbers}  {len(one.findings)}')
    executions = sum(one.executions for one in results)
    seconds, cpu = sum(one.seconds for one in results), sum(one.cpu for one in results)
    print(f'{"all":18}{executions:>12,}{seconds:>9.0f}{cpu:>7.0f}')


def main() -> int:
    every = [*TARGETS, MODEL]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--minutes', type=float, default=10, help='for all targets together')
    parser.add_argument('--target', action='append', choices=every, help='only this one')
    parser.add_argument('--jobs', type=int, default=1, help='targets at a time')
    parser.add_argument('--replay', type=Path, metavar='FILE', help='run one input')
    parser.add_argument('--self-test', action='store_true', help='find planted faults')
    parser.add_argument('--fresh', action='store_true', help='forget the corpus of earlier runs')
    options = parser.parse_args()
    watch.build()
    if options.replay:
        return replay(options.replay)
    if options.self_test:
        return self_test()
    if options.fresh:
        shutil.rmtree(BUILD / 'corpus', ignore_errors=True)
    chosen = [name for name in every if name in (options.target or every)]
    shares = {name: TARGETS.get(name, 2) for name in chosen}
    unit = options.minutes * 60 / sum(shares.values())

    def run(name: str) -> Result:
        print(f'== {name}: {unit * shares[name]:.0f} seconds', flush=True)
        if name == MODEL:
            return model(unit * shares[name], BUILD)
        return fuzz(name, unit * shares[name], ROOT / 'corpus' / name, BUILD)

    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(run, chosen))
    table(results)
    (BUILD / 'results.json').write_text(json.dumps([asdict(one) for one in results], indent=1))
    findings = [finding for one in results for finding in one.findings]
    for finding in findings:
        print(f'found: {finding}')
        if Path(finding).exists():
            print(f"       make fuzz ARGS='--replay {finding}'")
    return int(bool(findings))


if __name__ == '__main__':
    sys.exit(main())
