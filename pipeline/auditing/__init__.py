"""The verb `audit`: what is wrong with the data of a cache entry, a file a question.

The folder is not called `audit`: a module of that name would take the place of the function `pipeline.audit`.
"""
