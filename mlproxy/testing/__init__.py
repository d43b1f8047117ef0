"""For whoever extends the proxy: what a codec of one's own must pass, and what to try it with.

Install the extra ``testing``. Nothing of the product imports this.
"""
