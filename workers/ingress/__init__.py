"""An ingress worker: Uvicorn with a hot path for predictions. **Effects.**"""
