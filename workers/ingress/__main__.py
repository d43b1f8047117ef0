"""``python -m workers.ingress <launch fd>``: one ingress worker. **Effects.**"""

import uvloop

from workers.ingress.server import serve
from workers.launch import enter_role

if __name__ == "__main__":
    uvloop.run(serve(enter_role()))
