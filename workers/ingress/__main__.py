"""``python -m workers.ingress <launch fd>``: one ingress worker. **Effects.**"""

import sys

import uvloop

from workers.ingress.server import serve
from workers.launch import enter_role

if __name__ == "__main__":
    sys.exit(uvloop.run(serve(enter_role())))
