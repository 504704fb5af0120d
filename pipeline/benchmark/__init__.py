"""What this machine makes of each claim: measured side by side, in one run, against an honest alternative.

machine, timing, figures        what it ran on, interleaved repeats, the value a claim ends in
photos, loop, child             inputs made on the spot, the plain loop over images, fresh processes
extraction, epochs, reading, …  a file a claim; docs/PERFORMANCE.md explains each
run                             all of them in order: the verb behind `pipeline benchmark`
"""
