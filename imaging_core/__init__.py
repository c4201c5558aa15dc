"""What both methods stand on: data, patient-level splits, classifiers, fitting, metrics, seeds.

Nothing here knows of Ray, files of results, studies or argument parsers. Modules that a command
line needs before any work starts (`fields`, `task`, `splits`, `datasets`) import no torch, so
that bad input is refused in well under two seconds.
"""
