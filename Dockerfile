# Build: docker build -t automation-guardrails:0.1.0 .   (docs/operations/image.md)
ARG NODE_IMAGE=node:24-slim
ARG RUNTIME_IMAGE=gcr.io/distroless/nodejs24-debian12:nonroot

# What it makes runs on every architecture, so it is built on the builder's own.
FROM --platform=$BUILDPLATFORM ${NODE_IMAGE} AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm install
COPY tsconfig.json tsconfig.build.json ./
COPY src src
RUN npm run build && rm -rf node_modules && npm install --omit=dev --omit=optional
RUN node dist/release/sbom.js > sbom.cdx.json && rm -rf dist/release

FROM ${RUNTIME_IMAGE}
WORKDIR /app
COPY --from=build /app/package.json /app/sbom.cdx.json ./
COPY --from=build /app/node_modules node_modules
COPY --from=build /app/dist dist
USER 65532:65532
EXPOSE 8080 8081
ENTRYPOINT ["/nodejs/bin/node", "dist/main.js"]
