"""An AWS account, a Hub and a GPU box on 127.0.0.1, for real enough that unmodified clients and scripts cannot tell.

`world` starts, asks and stops it; `aws` is the account, `box` the machines that run scripts, `hub` the Hub. See README.md.
"""
