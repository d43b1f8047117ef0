"""``python -m workers.admin <launch fd>``: the admin process. **Effects.**"""

import asyncio

from workers.admin.server import serve
from workers.launch import enter_role

if __name__ == "__main__":
    asyncio.run(serve(enter_role()))
