"""The admin process: metrics and status, apart from the data path. **Effects.**"""
