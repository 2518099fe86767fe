#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes interface definitions as a C source: embed-interface.py OUTPUT NAME.varlink...

The result defines `methods_interfaces`, declared in daemon/methods-service.h. Texts become lists
of byte values, since ISO C ends the length of a string literal at 4095 bytes.
"""
import pathlib
import sys


def main(output, inputs):
    lines = ['/* SPDX-License-Identifier: GPL-2.0-or-later */',
             '/* Made by embed-interface.py from the .varlink files: do not edit. */',
             '#include <stddef.h>', '', '#include "daemon/methods-service.h"', '']
    for number, path in enumerate(inputs):
        text = path.read_bytes()
        lines.append(f'static const char text_{number}[] = {{')
        for start in range(0, len(text), 16):
            lines.append('\t' + ' '.join(f'{byte:d},' for byte in text[start:start + 16]))
        lines += ['\t0,', '};', '']
    lines.append('const struct methods_interface methods_interfaces[] = {')
    for number, path in enumerate(inputs):
        lines.append(f'\t{{ "{path.name.removesuffix(".varlink")}", text_{number} }},')
    lines += ['\t{ NULL, NULL },', '};', '']
    pathlib.Path(output).write_text('\n'.join(lines), encoding='ascii')


if __name__ == '__main__':
    main(sys.argv[1], [pathlib.Path(name) for name in sys.argv[2:]])
