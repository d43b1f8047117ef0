"""Channels between an ingress worker and the batcher: shared-memory rings, eventfds, rendezvous. **Effects.**"""
