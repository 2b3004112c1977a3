#!/usr/bin/python3
"""Starts one part of OpenStack Swift for the tests. Each directory is a Swift of its own:

The stock /usr/bin/swift-* servers always read /etc/swift/swift.conf (`swift_dir` moves only the rings); here the directory is set before
the rest of Swift is imported, so each has its own hash, policies and limits, and /etc/swift is not touched.

    swift-launch.py rings ETC REPLICAS ACCOUNT_PORT CONTAINER_PORT OBJECT_PORT
                                    writes the three rings: devices d1 to dREPLICAS, each object on all, the rest on d1
    swift-launch.py serve ETC ROLE CONF                                ROLE: proxy-server, account-server, container-server, object-server
    swift-launch.py update ETC CONF                                    one pass of the object updater: listings catch up
"""
import os
import sys


def use_directory(etc):
    from swift.common import utils
    # Importing it has read the hash of /etc/swift already; this reads it again.
    utils.set_swift_dir(etc)


def rings(etc, replicas, *ports):
    from swift.common.ring import RingBuilder
    for name, port in zip(('account', 'container', 'object'), ports):
        count = int(replicas) if name == 'object' else 1
        builder = RingBuilder(6, count, 0)  # 64 partitions, no wait between rebalances
        for device in range(count):
            builder.add_dev({'id': device, 'region': 1, 'zone': device + 1, 'weight': 1.0, 'ip': '127.0.0.1', 'port': int(port),
                             'device': 'd%d' % (device + 1), 'meta': ''})
        builder.rebalance()
        builder.get_ring().save(os.path.join(etc, name + '.ring.gz'))


def main(action, *arguments):
    if action == 'rings':
        rings(*arguments)
    elif action == 'serve':
        etc, role, conf = arguments
        use_directory(etc)
        from swift.common.wsgi import run_wsgi
        # verbose: the log goes to stderr, there may be no syslog.
        return run_wsgi(conf, role, verbose=True)
    elif action == 'update':
        etc, conf = arguments
        use_directory(etc)
        from swift.common.daemon import run_daemon
        from swift.obj.updater import ObjectUpdater
        run_daemon(ObjectUpdater, conf, once=True, verbose=True)
    else:
        sys.exit(__doc__)


sys.exit(main(*sys.argv[1:]))
