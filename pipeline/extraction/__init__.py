"""Stage 1: images to features in the cache.

job      what is to be done: source, backbone, recipe, what is known already
shard    `extract_shard`, the core loop: any shard, by anyone, in any order, any number of times
publish  from committed shards to a finished entry
"""
