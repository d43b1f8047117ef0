"""The batcher: the one process that owns every queue and decision. **Effects.**"""
