"""New images through the fused model.

predict  the verb: a stream of predictions
images   from what a user named to image files
write    predictions as CSV, JSON lines or Parquet
"""
