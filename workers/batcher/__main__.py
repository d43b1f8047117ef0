"""``python -m workers.batcher <launch fd>``: the batcher. **Effects.**"""

import uvloop

from workers.batcher.server import serve
from workers.launch import enter_role

if __name__ == "__main__":
    uvloop.run(serve(enter_role()))
