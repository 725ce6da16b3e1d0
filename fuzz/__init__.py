"""Coverage-guided fuzzing of everything that reads what a peer sent.

``make fuzz`` runs it, ``docs/fuzzing.rst`` tells what it is and what it found.

* ``targets/``: one module a target, with a function ``check(data)`` that
  raises for what must not be. They need nothing but the package, so the tests
  run them too, on the inputs that are committed;
* ``seeds.py`` writes ``corpus/``, what each target starts from;
* ``regressions/`` keeps every input that once found something;
* ``__main__.py`` shares a time budget over the targets and prints the table,
  ``worker.py`` is the process that one target runs in, under libFuzzer;
* ``watch.py`` builds the compiled codec so that libFuzzer sees its branches.
"""
