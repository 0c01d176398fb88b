"""Performance without labels: what the reference's labels taught of a model, packaged with it, and what that says of live rows.

Hides estimators, trees and cells behind `learnt` (at packaging) and `estimate` (of live rows), `binned` and `priced` (of profiles alone). It must not
read a file, a clock or a bundle.
"""

from modelyard.monitor.estimate.estimator import Estimated as Estimated
from modelyard.monitor.estimate.estimator import Figure as Figure
from modelyard.monitor.estimate.estimator import estimate as estimate
from modelyard.monitor.estimate.learnt import Learnt as Learnt
from modelyard.monitor.estimate.learnt import Rows as Rows
from modelyard.monitor.estimate.learnt import decode as decode
from modelyard.monitor.estimate.learnt import encode as encode
from modelyard.monitor.estimate.learnt import learn as learn
from modelyard.monitor.estimate.prices import binned as binned
from modelyard.monitor.estimate.prices import price as price
from modelyard.monitor.estimate.prices import priced as priced
