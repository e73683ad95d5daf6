"""The line protocol of the drivers in Python: see README.md."""

import json
import statistics
import sys
import time


def answer(**fields):
    print(json.dumps(fields), flush=True)


def serve(setup):
    """Reads commands until `quit`. `setup(parameters)` returns a note and the operations: a function
    per name, or a pair of a function and one that frees its result outside of the timed part."""
    operations = {}
    for line in sys.stdin:
        command, _, rest = line.strip().partition(" ")
        try:
            if command == "quit":
                return
            if command == "setup":
                parameters = json.loads(rest)
                note, operations = setup(parameters)
                known = [op for op in parameters["ops"] if op in operations]
                answer(ops=known, note=note)
            elif command == "run":
                name, repeats = rest.split()
                answer(ms=timed(operations[name], int(repeats)))
            else:
                answer(error=f"no command {command!r}")
        except Exception as error:  # the harness leaves the operation out and says why
            answer(error=f"{type(error).__name__}: {error}")


def timed(operation, repeats):
    """Median of the repetitions, in milliseconds on the wall clock."""
    run, free = operation if isinstance(operation, tuple) else (operation, None)
    times = []
    for _ in range(repeats):
        start = time.perf_counter_ns()
        result = run()
        times.append(time.perf_counter_ns() - start)
        if free:
            free(result)
        del result
    return statistics.median(times) / 1e6
