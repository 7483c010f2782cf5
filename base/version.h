/* SPDX-License-Identifier: Apache-2.0 */
/* base/version.h - this program's version, as the command, the health page and upstream see it. */
#ifndef BASE_VERSION_H
#define BASE_VERSION_H

#define HUBGATE_VERSION "0.1.0"

#endif
