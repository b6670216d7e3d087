"""Python programs in processes that are forked from one with the large packages imported.

A process that trains or serves takes three to five seconds of processor time to import them. `client.py ARGS` takes the
place of `python ARGS`: it hands its arguments, environment, folder and open files to the server, which forks a process
for them, and lives, ends and dies with that process.
"""
