"""Who calls `extract_shard`: here one process, shard after shard."""
