"""The task: its rows, its labelling guide and schema, its score, and the generator that wrote the shipped set.

Standard library only, as laptop, box and image all import this room; but `show` needs rich, and Parquet pyarrow.
"""
