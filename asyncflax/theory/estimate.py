def estimate_momentum(): pass
class MomentumEstimate: pass
